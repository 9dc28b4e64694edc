"""What the engine is asked, for what the job file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.jobs import job_of, prompts
from tightrun.cli.load_engine import engine_options
from tightrun.io.inputs import scan_inputs
from tightrun.io.job import load_job
from tightrun.policies.plan import Workload
from tightrun.runtime.options import EngineOptions, Machine

CARD = {
    "device": "emulated",
    "gpu_memory": "400MiB",
    "cpu_memory": "2GiB",
    "disk": "10GB",
    "h2d": "500MB/s",
    "d2h": "250MB/s",
    "disk_read": "1GB/s",
    "disk_write": "100MB/s",
    "latency_us": 20,
    "host_bandwidth": "10GB/s",
    "device_bandwidth": "20GB/s",
    "flops": {2048: "120TFLOP/s", 64: "30TFLOP/s"},
}


def options_of(folder: Path, **sections: Any) -> EngineOptions:
    job = load_job(job_of(folder, prompts(3), **sections))
    return engine_options(job, scan_inputs(job, spool=folder / "spool"), rows=3)


def test_a_machine_reaches_the_engine_in_plain_numbers(tmp_path: Path) -> None:
    assert options_of(tmp_path, hardware=CARD).machine == Machine(
        device="emulated",
        gpu_memory=400 * 2**20,
        cpu_memory=2 * 2**30,
        disk=10 * 10**9,
        h2d=5e8,
        d2h=2.5e8,
        disk_read=1e9,
        disk_write=1e8,
        latency_s=20e-6,
        host_bandwidth=1e10,
        device_bandwidth=2e10,
        flops=((64, 3e13), (2048, 1.2e14)),
    )


def test_what_a_machine_leaves_out_is_left_to_be_measured(tmp_path: Path) -> None:
    machine = options_of(tmp_path, hardware={"device": "cuda"}).machine
    assert machine == Machine(device="cuda")


@pytest.mark.parametrize(
    ("hardware", "device"),
    [
        ("auto", "auto"),
        ("cuda:1", "cuda:1"),
        (CARD, "cpu"),
        ({"device": "cuda"}, "cuda"),
        ({"device": "cpu"}, "cpu"),
    ],
)
def test_the_device_that_computes(tmp_path: Path, hardware: Any, device: str) -> None:
    assert options_of(tmp_path, hardware=hardware).device == device


def test_without_a_machine_limits_are_shares_of_what_is_found(tmp_path: Path) -> None:
    options = options_of(tmp_path)
    assert (options.machine, options.gpu_memory, options.cpu_memory) == (None, 0.9, 0.8)
    assert options.disk is None


def test_limits_are_shares_of_the_machine(tmp_path: Path) -> None:
    limits = {"gpu_memory": "50%", "cpu_memory": "1GiB", "disk": "10%"}
    options = options_of(tmp_path, hardware=CARD, limits=limits)
    assert (options.gpu_memory, options.cpu_memory) == (200 * 2**20, 2**30)
    assert options.disk == 10**9


def test_the_policy_reaches_the_engine(tmp_path: Path) -> None:
    policy = {
        "name": "static",
        "recompute": 0.3,
        "recompute_form": "activations",
        "batch_size": 8,
        "batches": 4,
    }
    options = options_of(tmp_path, policy=policy)
    assert (options.policy, options.recompute, options.recompute_form) == (
        "static",
        0.3,
        "activations",
    )
    assert (options.batch_size, options.batches) == (8, 4)


def test_a_policy_that_is_not_set_is_adaptive_and_decides_itself(tmp_path: Path) -> None:
    options = options_of(tmp_path)
    assert (options.policy, options.recompute, options.recompute_form) == ("adaptive", None, "auto")


def test_what_is_built_or_converted_once_is_kept_for_later_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = options_of(tmp_path)
    assert options.kernel_cache == tmp_path / "cache" / "tightrun" / "kernels"
    assert options.spill == tmp_path / "cache" / "tightrun" / "slabs"
    assert not (tmp_path / "cache").exists()


def test_what_is_known_of_the_rows_reaches_the_engine(tmp_path: Path) -> None:
    job = load_job(job_of(tmp_path, prompts(3)))
    scan = scan_inputs(job, spool=tmp_path / "spool")
    options = engine_options(job, scan, 3, Workload(3, typical_output=40, prompts=(5, 6, 9)))
    assert (options.prompts, options.expected_output) == ((5, 6, 9), 40)
