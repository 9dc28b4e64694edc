"""How many processors may be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime import recorded_systems as systems
from tests.runtime.recorded_systems import System
from tightrun.runtime.processors import usable_processors


@pytest.mark.parametrize(
    ("system", "allowed", "count", "limit"),
    [
        (systems.host, 6, 6, "the affinity mask"),
        (systems.systemd_v2, 2, 2, "the affinity mask"),
        (systems.systemd_v2, 64, 4, "the cgroup's cpu.max (/batch.slice/job.service)"),
        (systems.docker_v2, 64, 2, "the cgroup's cpu.max (/)"),
        (systems.docker_v1, 64, 1, "the cgroup's cpu.cfs_quota_us (/docker/5f3c)"),
        (systems.slurm_v1, 64, 8, "the cgroup's cpu.cfs_quota_us (/slurm/uid_1001/job_512)"),
    ],
)
def test_the_least_of_mask_and_quota_counts(
    tmp_path: Path, system: System, allowed: int, count: int, limit: str
) -> None:
    found = usable_processors(range(allowed), system(tmp_path))
    assert (found.count, found.limit) == (count, limit)
