"""How much host memory may be used, and which limit says so: whole systems as they are found."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.runtime import recorded_systems as systems
from tests.runtime.recorded_systems import GIB, MIB, System, write
from tightrun.policies.hardware import Budget
from tightrun.runtime.host_memory import host_budget, host_limits
from tightrun.runtime.rlimits import LATER_THREADS_BYTES, GetLimit, lockable_memory, rlimit_memory
from tightrun.runtime.system import System as Readers

RESIDENT = 100 * MIB
NONE = resource.RLIM_INFINITY


def limits_of(set_: Mapping[int, int]) -> GetLimit:
    return lambda number: (set_.get(number, NONE), NONE)


def readers(
    root: Path, environment: Mapping[str, str] | None = None, set_: Mapping[int, int] | None = None
) -> Readers:
    return Readers(root, environment or {}, limits_of(set_ or {}), lambda: frozenset({0, 1}))


def all_of(root: Path, **more: Mapping[str, str]) -> Budget:
    return host_budget(1.0, readers(root, **more))


@pytest.mark.parametrize(
    ("system", "expected", "words"),
    [
        (systems.host, 240 * GIB + RESIDENT, "available memory"),
        (systems.systemd_v2, 15 * GIB + RESIDENT, "memory.high (/batch.slice/job.service)"),
        (systems.slurm_v1, 19 * GIB + RESIDENT, "memory.limit_in_bytes (/slurm/uid_1001/job_512"),
        (systems.hybrid, 6 * GIB + RESIDENT, "memory.limit_in_bytes (/user.slice/job)"),
        (systems.docker_v2, 4 * GIB - 256 * MIB + RESIDENT, "memory.max (/)"),
        (systems.docker_v1, 3 * GIB + RESIDENT, "memory.limit_in_bytes (/docker/5f3c)"),
        (systems.kubernetes_v1, 5 * GIB + RESIDENT, "hierarchical_memory_limit"),
        (systems.kubernetes_v2, 5 * GIB + RESIDENT, "memory.max (/kubepods.slice"),
    ],
)
def test_the_least_counts_and_what_is_held_already(
    tmp_path: Path, system: System, expected: int, words: str
) -> None:
    budget = all_of(system(tmp_path))
    assert budget.bytes == expected
    assert words in budget.limit


def test_no_more_than_the_group_allows_in_all(tmp_path: Path) -> None:
    systems.docker_v2(tmp_path)
    systems.host(tmp_path, resident_bytes=GIB)
    assert all_of(tmp_path).bytes == 4 * GIB


def test_slurm_counts_where_no_group_shows_its_limit(tmp_path: Path) -> None:
    budget = all_of(systems.host(tmp_path), environment={"SLURM_MEM_PER_NODE": "32G"})
    assert budget == Budget(32 * GIB, "limits.cpu_memory (100% of SLURM_MEM_PER_NODE)")


@pytest.mark.parametrize(
    ("number", "taken", "words"),
    [
        (resource.RLIMIT_AS, 4 * RESIDENT + LATER_THREADS_BYTES, "RLIMIT_AS (ulimit -v)"),
        (resource.RLIMIT_DATA, 2 * RESIDENT, "RLIMIT_DATA (ulimit -d)"),
    ],
)
def test_an_rlimit_counts_what_is_mapped(
    tmp_path: Path, number: int, taken: int, words: str
) -> None:
    budget = host_budget(1.0, readers(systems.host(tmp_path), set_={number: 10 * GIB}))
    assert budget.bytes == 10 * GIB - taken + RESIDENT
    assert words in budget.limit


def test_without_rlimits_there_are_none() -> None:
    held = systems.held()
    assert rlimit_memory(held, limits_of({})) == []
    assert lockable_memory(limits_of({})) is None


def test_what_may_be_locked_is_told() -> None:
    found = lockable_memory(limits_of({resource.RLIMIT_MEMLOCK: 8 * MIB}))
    assert found == Budget(8 * MIB, "RLIMIT_MEMLOCK (ulimit -l)")


def test_a_share_is_of_what_may_be_used(tmp_path: Path) -> None:
    budget = host_budget(0.5, readers(systems.docker_v1(tmp_path)))
    assert budget.bytes == (3 * GIB + RESIDENT) // 2
    assert budget.limit.startswith("limits.cpu_memory (50% of the cgroup's")


def test_bytes_that_were_asked_for_are_the_budget(tmp_path: Path) -> None:
    budget = host_budget(2 * GIB, readers(systems.docker_v1(tmp_path)))
    assert budget == Budget(2 * GIB, "limits.cpu_memory")


def test_more_than_there_is_cannot_be_asked_for(tmp_path: Path) -> None:
    budget = host_budget(100 * GIB, readers(systems.docker_v1(tmp_path)))
    assert budget.bytes == 3 * GIB + RESIDENT
    assert budget.limit == "the cgroup's memory.limit_in_bytes (/docker/5f3c)"


def test_every_limit_is_told_beside_the_one_that_won(tmp_path: Path) -> None:
    system = readers(systems.systemd_v2(tmp_path), {"SLURM_MEM_PER_NODE": "32G"})
    found = [limit.limit for limit in host_limits(system)]
    assert len(found) == 4
    assert {"SLURM_MEM_PER_NODE", "available memory"} <= set(found)


def test_a_system_that_says_nothing_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cpu_memory"):
        host_limits(readers(write(tmp_path, {})))
