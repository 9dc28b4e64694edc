"""What a process without the weights learns of a model and its machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.parity.families import RUN
from tests.parity.tiny_models import save_tiny
from tightrun.policies.hardware import Rates
from tightrun.runtime import link_rates
from tightrun.runtime.learning import LearningRefusedError, Learnt, learn_model
from tightrun.runtime.options import EngineOptions, Machine

CARD = Machine("emulated", gpu_memory=2**20, h2d=2e8, d2h=1e8, disk_read=5e7)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("learnt") / "llama", *RUN["llama"])


def learn(model: Path, machine: Machine | None, holding: int = 0, **options: Any) -> Learnt:
    asked = EngineOptions(
        str(model), device="cpu", machine=machine, spill=model.parent / "spill", **options
    )
    return learn_model(asked, holding, lambda _: None)


@pytest.fixture(scope="module")
def on_card(model: Path) -> Rates:
    rates = learn(model, CARD).rates
    assert rates is not None
    return rates


def test_links_are_what_they_are_given_as(on_card: Rates) -> None:
    rates = on_card
    assert (rates.h2d_bytes_per_s, rates.d2h_bytes_per_s) == (2e8, 1e8)
    assert (rates.disk_bytes_per_s, rates.duplex_bytes_per_s) == (5e7, 0.0)
    assert rates.host_bytes_per_s > 1e9


def test_the_model_itself_is_timed(on_card: Rates) -> None:
    assert on_card.work is not None
    assert not on_card.work.packed


def test_links_that_are_not_given_are_measured(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_rates, "PROBE_BYTES", 2**25)
    rates = learn(model, Machine("emulated", gpu_memory=2**20)).rates
    assert rates is not None
    alone = (rates.h2d_bytes_per_s, rates.d2h_bytes_per_s)
    assert min(alone) > 1e8
    assert max(alone) / 2 < rates.duplex_bytes_per_s <= 1.5 * sum(alone)
    assert rates.disk_bytes_per_s > 1e6


def test_without_weights_the_disk_is_measured_with_a_file_that_is_removed(
    model: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text((model / "config.json").read_text())
    rates = learn(tmp_path, None).rates
    assert rates is not None
    assert rates.disk_bytes_per_s > 1e6
    assert list((tmp_path.parent / "spill").iterdir()) == []


def test_a_machine_that_computes_at_other_rates_is_not_timed_here(model: Path) -> None:
    told = Machine("cpu", flops=((64, 1e12),), host_bandwidth=2e11)
    rates = learn(model, told).rates
    assert rates is not None
    assert (rates.flops_per_s, rates.memory_bytes_per_s) == (((64, 1e12),), 2e11)
    assert rates.work is None


def test_a_card_that_is_not_here_has_no_rates(model: Path) -> None:
    learnt = learn(model, Machine("cuda", gpu_memory=2**34))
    assert learnt.rates is None
    assert learnt.profile.shape.hidden == 64


def test_what_a_process_holds_counts_beside_the_model(model: Path) -> None:
    card = Machine("cuda", gpu_memory=2**34)
    alone, more = (learn(model, card, holding).profile.beside_bytes for holding in (0, 2**33))
    assert alone > 2**27
    assert 2**32 < more - alone < 2**34


def test_nothing_counts_beside_the_model_in_a_memory_that_is_a_number(model: Path) -> None:
    card = Machine("cuda", gpu_memory=2**34, cpu_memory=2**30)
    assert learn(model, card, 2**33, cpu_memory=2**30).profile.beside_bytes == 0


def test_what_the_engine_refuses_is_refused(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text()) | {"model_type": "mamba"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(LearningRefusedError):
        learn(tmp_path, CARD)
