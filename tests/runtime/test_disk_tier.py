"""Weights that stay on the disk: read straight into a CPU's slots, or through a host too small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.parity.families import RUN
from tests.parity.offloaded import MIB, Run, requests_of, run_engine
from tests.parity.tiny_models import Oracle, ragged_prompts, save_tiny
from tightrun.runtime.engine import Engine
from tightrun.runtime.loaded_model import LoadedModel
from tightrun.runtime.loading import load
from tightrun.runtime.options import EngineOptions, Machine

KIB = 2**10


@pytest.fixture(scope="module", params=["llama", "mixtral"])
def oracle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    folder = save_tiny(tmp_path_factory.mktemp("model") / request.param, *RUN[request.param])
    made = Oracle(folder, ragged_prompts(8, shared=20, longest=60))
    made.set_end_token()
    return made


@pytest.fixture
def run_on(
    oracle: Oracle, word_tokenizer: Path, tmp_path: Path
) -> Callable[..., tuple[Run, LoadedModel]]:
    """Runs the oracle's prompts on a machine, with the plan made for it."""

    def run(machine: Machine, **others: Any) -> tuple[Run, LoadedModel]:
        options = EngineOptions(
            str(oracle.folder),
            tokenizer=str(word_tokenizer),
            dtype="float32",
            machine=machine,
            gpu_memory=machine.gpu_memory or 0.9,
            cpu_memory=machine.cpu_memory or 0.8,
            spill=tmp_path,
            context=256,
            rows=8,
            poison=True,
            **others,
        )
        model = load(options, lambda _: None)
        engine = Engine(options, model)
        try:
            return run_engine(engine, requests_of(oracle)), model
        finally:
            engine.close()

    return run


def weight_bytes(model: LoadedModel) -> int:
    assert model.skeleton is not None
    return sum(model.skeleton.slab_bytes(i) for i in range(len(model.skeleton.layers)))


@pytest.mark.parametrize("policy", ["adaptive", "static", "sync"])
def test_a_cpu_reads_layers_from_the_disk_in_every_pass(
    policy: str, oracle: Oracle, run_on: Callable[..., tuple[Run, LoadedModel]]
) -> None:
    room = 1100 * KIB if "mixtral" in str(oracle.folder) else 640 * KIB
    run, model = run_on(Machine("cpu", cpu_memory=room), policy=policy)
    assert run.said == oracle.expected
    assert model.accelerator.kind == "cpu"
    assert model.plan.disk_layers
    assert all(step.disk_bytes > 0 for step in run.steps)
    assert model.accelerator.memory.peak <= room


@pytest.mark.parametrize("policy", ["adaptive", "static", "sync"])
def test_a_host_too_small_for_the_weights_passes_them_on_from_the_disk(
    policy: str, oracle: Oracle, run_on: Callable[..., tuple[Run, LoadedModel]]
) -> None:
    large = "mixtral" in str(oracle.folder)
    device, host = (1000 * KIB, 800 * KIB) if large else (560 * KIB, 300 * KIB)
    run, model = run_on(Machine("emulated", device, host, h2d=2e9, d2h=2e9), policy=policy)
    assert run.said == oracle.expected
    assert model.plan.disk_layers
    assert model.plan.staging_slots == 2
    # What a pass needs first may have been read ahead in the one before.
    assert model.skeleton is not None
    each = sum(model.skeleton.slab_bytes(i, "disk") for i in model.plan.disk_layers)
    assert sum(step.disk_bytes for step in run.steps) >= (len(run.steps) - 2) * each > 0
    assert host < weight_bytes(model)
    assert model.accelerator.host_memory.peak <= host


def test_a_cpu_with_room_for_all_reads_nothing_again(
    oracle: Oracle, run_on: Callable[..., tuple[Run, LoadedModel]]
) -> None:
    run, model = run_on(Machine("cpu", cpu_memory=8 * MIB))
    assert run.said == oracle.expected
    assert not model.plan.disk_layers
    assert not any(step.disk_bytes for step in run.steps)
