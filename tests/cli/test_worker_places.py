"""Each process has a GPU of its own, and its part of processors and host memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.jobs import job_of, prompts
from tests.runtime.recorded_systems import GIB, host
from tests.runtime.stand_in_nvml import Device, StandInNvml
from tightrun.cli.engine_seam import RefusedError
from tightrun.cli.worker_places import WorkerPlace, worker_places
from tightrun.io.job import load_job
from tightrun.runtime import limits
from tightrun.runtime.system import System

CARDS = [Device(f"GPU-{number}", free=20 * GIB) for number in range(4)]
EMULATED = {"device": "emulated", "gpu_memory": "1GiB", "cpu_memory": "8GiB"}


@pytest.fixture(autouse=True)
def torch_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "cuda_version", lambda: "13.0")


def places(
    folder: Path,
    workers: int | None,
    cards: int = 4,
    environment: Mapping[str, str] | None = None,
    **sections: Any,
) -> list[WorkerPlace]:
    system = System(
        root=host(folder / "host"),
        environment=environment or {},
        affinity=lambda: frozenset(range(8)),
        nvml=lambda: StandInNvml(*CARDS[:cards]),
    )
    return worker_places(load_job(job_of(folder, prompts(1), **sections)), workers, system)


def gpus(found: list[WorkerPlace]) -> list[str | None]:
    return [place.environment.get("CUDA_VISIBLE_DEVICES") for place in found]


def test_auto_is_one_process_for_each_gpu(tmp_path: Path) -> None:
    assert gpus(places(tmp_path, None)) == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]


def test_only_gpus_that_are_visible_are_used(tmp_path: Path) -> None:
    seen = {"CUDA_VISIBLE_DEVICES": "2,1"}
    assert gpus(places(tmp_path, None, environment=seen)) == ["GPU-2", "GPU-1"]


@pytest.mark.parametrize("hardware", ["auto", "cpu", EMULATED])
def test_without_a_gpu_auto_is_one_process(tmp_path: Path, hardware: Any) -> None:
    assert gpus(places(tmp_path, None, cards=0, hardware=hardware)) == [None]


@pytest.mark.parametrize("hardware", ["cpu", EMULATED])
def test_processes_without_a_gpu_may_be_any_number(tmp_path: Path, hardware: Any) -> None:
    assert gpus(places(tmp_path, 5, hardware=hardware)) == [None] * 5


def test_more_processes_than_gpus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"--workers 5.*CUDA sees 4"):
        places(tmp_path, 5)


def test_one_named_gpu_is_not_for_several(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="cuda:1 is one GPU"):
        places(tmp_path, 2, hardware="cuda:1")


def test_processors_and_host_memory_are_divided(tmp_path: Path) -> None:
    found = places(tmp_path, 3, limits={"cpu_memory": "30GiB"})
    assert [place.processors for place in found] == [(0, 1), (2, 3, 4), (5, 6, 7)]
    assert {place.host_bytes for place in found} == {10 * GIB}


def test_with_fewer_processors_each_has_all_of_them(tmp_path: Path) -> None:
    found = places(tmp_path, 9, hardware="cpu")
    assert {place.processors for place in found} == {tuple(range(8))}
