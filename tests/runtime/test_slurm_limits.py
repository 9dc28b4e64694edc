"""What Slurm's variables allow."""

from __future__ import annotations

import pytest

from tests.runtime.recorded_systems import GIB, MIB
from tightrun.runtime.slurm_limits import slurm_memory

CPUS = {"SLURM_CPUS_ON_NODE": "16", "SLURM_JOB_CPUS_PER_NODE": "16(x2),8"}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("65536", 64 * GIB),
        ("65536M", 64 * GIB),
        ("64G", 64 * GIB),
        ("64g", 64 * GIB),
        ("1T", 1024 * GIB),
        ("4096K", 4 * MIB),
        ("64GB", 64 * GIB),
    ],
)
def test_a_size_is_in_mebibytes_unless_it_says_otherwise(size: str, expected: int) -> None:
    (budget,) = slurm_memory({"SLURM_MEM_PER_NODE": size})
    assert (budget.bytes, budget.limit) == (expected, "SLURM_MEM_PER_NODE")


@pytest.mark.parametrize("size", ["2048", "2G"])
@pytest.mark.parametrize(
    ("cpus", "where"),
    [
        (CPUS, "SLURM_CPUS_ON_NODE"),
        ({"SLURM_JOB_CPUS_PER_NODE": "16(x2),8"}, "SLURM_JOB_CPUS_PER_NODE"),
    ],
)
def test_memory_per_cpu_is_for_all_of_the_node(size: str, cpus: dict[str, str], where: str) -> None:
    (budget,) = slurm_memory({"SLURM_MEM_PER_CPU": size, **cpus})
    assert (budget.bytes, budget.limit) == (32 * GIB, f"SLURM_MEM_PER_CPU times 16 CPUs ({where})")


@pytest.mark.parametrize("size", ["40960", "40G"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLURM_GPUS_ON_NODE", "3"),
        ("SLURM_STEP_GPUS", "0,2,3"),
        ("SLURM_JOB_GPUS", "0,2-3"),
        ("SLURM_GPUS_PER_NODE", "a100:3"),
        ("SLURM_GPUS_PER_NODE", "3"),
    ],
)
def test_memory_per_gpu_is_for_all_of_the_node(size: str, name: str, value: str) -> None:
    (budget,) = slurm_memory({"SLURM_MEM_PER_GPU": size, name: value})
    assert budget.bytes == 120 * GIB
    assert budget.limit == f"SLURM_MEM_PER_GPU times 3 GPUs ({name})"


@pytest.mark.parametrize("name", ["SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU"])
def test_an_unknown_number_is_one_and_says_so(name: str) -> None:
    (budget,) = slurm_memory({name: "4G"})
    assert budget.bytes == 4 * GIB
    assert budget.limit.endswith("is not set)")


def test_all_of_the_nodes_memory_is_no_limit() -> None:
    assert slurm_memory({"SLURM_MEM_PER_NODE": "0"}) == []


def test_outside_of_slurm_there_is_no_limit() -> None:
    assert slurm_memory({"HOME": "/root"}) == []


@pytest.mark.parametrize("size", ["lots", "", "1.5G", "-1"])
def test_a_size_that_slurm_would_not_write_is_an_error(size: str) -> None:
    with pytest.raises(ValueError, match="correct or unset it"):
        slurm_memory({"SLURM_MEM_PER_NODE": size})
