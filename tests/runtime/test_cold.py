"""Weights that are used in turns, so that none of them is found in a cache of the processor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.parity.families import RUN
from tests.runtime.projected import CPU, cut_tiny
from tightrun.runtime import cold
from tightrun.runtime.cold import cache_bytes, in_turn, places, sweeper
from tightrun.runtime.model_profile import kinds_of_layers

CACHES = "sys/devices/system/cpu/cpu0/cache"


@pytest.fixture(autouse=True)
def _as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as quick probes have it."""
    monkeypatch.setattr(cold, "CACHES", CACHES)
    monkeypatch.setattr(cold, "USUAL_BYTES", 2**25)


def recorded(root: Path, *sizes: str) -> Path:
    for number, size in enumerate(sizes):
        index = root / CACHES / f"index{number}"
        index.mkdir(parents=True)
        (index / "size").write_text(size + "\n")
    return root


def test_the_largest_cache_counts(tmp_path: Path) -> None:
    root = recorded(tmp_path, "32K", "32K", "512K", "24M")
    assert cache_bytes(root) == 24 * 2**20


def test_without_a_word_of_the_system_it_is_a_usual_one(tmp_path: Path) -> None:
    assert cache_bytes(tmp_path) == 2**25
    assert cache_bytes(recorded(tmp_path, "", "?")) == 2**25


def test_small_weights_lie_in_many_places_and_large_ones_in_one() -> None:
    size = cache_bytes()
    assert places(2 * size, 4 * size, CPU) == 1
    assert places(size // 2, 4 * size, CPU) == 4
    assert places(size // 2, size, CPU) == 1
    assert places(0, 0, CPU) == 1
    assert places(16, 4 * size, torch.device("meta")) == 1


def test_layers_of_a_kind_take_turns() -> None:
    cut = cut_tiny(*RUN["deepseek_v3"])
    kinds = kinds_of_layers(cut)
    turn = in_turn(cut)
    for layer, kind in enumerate(kinds):
        alike = [i for i, other in enumerate(kinds) if other == kind]
        assert sorted(turn(layer) for _ in alike) == alike


def test_a_sweep_touches_more_than_the_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "cache_bytes", lambda: 64)
    sweep = sweeper(CPU, 65)
    assert sweep is not None
    sweep()
    assert sweeper(CPU, 64) is None
    assert sweeper(torch.device("meta"), 65) is None
