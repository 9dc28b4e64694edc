"""How many processors this process may keep busy."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tightrun.runtime.cgroups import quotas


@dataclass(frozen=True, slots=True)
class Processors:
    """A number of processors, and the limit that set it."""

    count: int
    limit: str


def usable_processors(allowed: Collection[int], root: Path = Path("/")) -> Processors:
    """The least of those in the affinity mask (`allowed`, cpusets included) and every quota.

    More threads than a quota has room for do not run faster: the group is stopped for the rest of
    each period, with whatever lock a thread holds.
    """
    mask = Processors(max(1, len(allowed)), "the affinity mask")
    found = [Processors(quota.processors, quota.words) for quota in quotas(root)]
    return min((mask, *found), key=lambda processors: processors.count)
