"""Which control groups limit a process, read from the files of real systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime import recorded_systems as systems
from tests.runtime.recorded_systems import GIB, MIB, System, group_v1, group_v2, write
from tightrun.runtime.cgroups import MemoryLimit, memory_limits, quotas


def tightest(root: Path) -> MemoryLimit:
    return min(memory_limits(root), key=lambda limit: limit.free)


@pytest.mark.parametrize(
    ("system", "free", "words"),
    [
        (systems.systemd_v2, 15 * GIB, "memory.high (/batch.slice/job.service)"),
        (systems.slurm_v1, 19 * GIB, "memory.limit_in_bytes (/slurm/uid_1001/job_512/step_0)"),
        (systems.hybrid, 6 * GIB, "memory.limit_in_bytes (/user.slice/job)"),
        (systems.docker_v2, 4 * GIB - 256 * MIB, "memory.max (/)"),
        (systems.docker_v1, 3 * GIB, "memory.limit_in_bytes (/docker/5f3c)"),
        (systems.kubernetes_v1, 5 * GIB, "hierarchical_memory_limit (/kubepods/"),
        (systems.kubernetes_v2, 5 * GIB, "memory.max (/kubepods.slice/kubepods-burstable.slice/"),
    ],
)
def test_the_tightest_group_is_found(tmp_path: Path, system: System, free: int, words: str) -> None:
    limit = tightest(system(tmp_path))
    assert limit.free == free
    assert limit.words.startswith(f"the cgroup's {words}")


@pytest.mark.parametrize(
    ("system", "processors"),
    [
        (systems.systemd_v2, 4),
        (systems.slurm_v1, 8),
        (systems.docker_v2, 2),
        (systems.docker_v1, 1),
        (systems.kubernetes_v2, 4),
    ],
)
def test_the_least_quota_is_rounded_up_to_processors(
    tmp_path: Path, system: System, processors: int
) -> None:
    assert min(quota.processors for quota in quotas(system(tmp_path))) == processors


def test_no_quota_is_no_limit(tmp_path: Path) -> None:
    assert quotas(systems.hybrid(tmp_path)) == []


def test_what_siblings_use_of_a_parent_counts(tmp_path: Path) -> None:
    systems.systemd_v2(tmp_path)
    write(tmp_path, group_v2("/batch.slice", 60 * GIB, max=64 * GIB))
    assert tightest(tmp_path).words == "the cgroup's memory.max (/batch.slice)"


def test_a_group_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    systems.docker_v2(tmp_path)
    write(tmp_path, group_v2("", 5 * GIB, max=4 * GIB))
    assert tightest(tmp_path).free == 0


def test_a_v1_parent_that_does_not_count_its_children_does_not_limit_them(tmp_path: Path) -> None:
    systems.hybrid(tmp_path)
    write(tmp_path, group_v1("/user.slice", 1 * GIB, 2 * GIB, use_hierarchy=0))
    assert [limit.group for limit in memory_limits(tmp_path)] == ["/user.slice/job"]


@pytest.mark.parametrize("path", ["/", "/..", "/../../job", "/somewhere/else"])
@pytest.mark.parametrize("inner", ["/", "/../..", "/docker/5f3c"])
def test_in_a_namespace_the_top_that_is_mounted_counts_at_least(
    tmp_path: Path, path: str, inner: str
) -> None:
    systems.docker_v2(tmp_path)
    mounts = f"31 22 0:26 {inner} /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
    write(tmp_path, {"proc/self/cgroup": f"0::{path}\n", "proc/self/mountinfo": mounts})
    assert tightest(tmp_path).bytes == 4 * GIB


def test_a_process_is_found_by_its_number(tmp_path: Path) -> None:
    systems.systemd_v2(tmp_path)
    write(tmp_path, {"proc/71/cgroup": "0::/batch.slice\n"})
    assert [limit.group for limit in memory_limits(tmp_path, "71")] == ["/batch.slice"]


@pytest.mark.parametrize("missing", ["cgroup", "mountinfo"])
def test_without_the_files_there_is_no_limit(tmp_path: Path, missing: str) -> None:
    (systems.systemd_v2(tmp_path) / "proc/self" / missing).unlink()
    assert memory_limits(tmp_path) == []
    assert quotas(tmp_path) == []
