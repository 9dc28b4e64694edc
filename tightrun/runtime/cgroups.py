"""Limits of the control groups this process is in, v1 and v2, every ancestor that can be seen.

A group is limited by each of its ancestors too, and by what its siblings use of theirs: the least
that is left in any of them is what this process can still get. Inside a container the groups are
seen from the container's own up; those above it show only through `hierarchical_memory_limit`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tightrun.runtime.mounts import Mount, read_mounts

# What v1 shows for "no limit" is the largest multiple of a page in 63 bits.
NO_LIMIT = 1 << 60
_LIMITS = {1: ("memory.limit_in_bytes",), 2: ("memory.high", "memory.max")}
_USED = {1: "memory.usage_in_bytes", 2: "memory.current"}
_CACHE = {1: "total_inactive_file", 2: "inactive_file"}


@dataclass(frozen=True, slots=True)
class Group:
    """A control group: its files are in `folder`, `name` is its path as the system calls it."""

    folder: Path
    name: str
    version: int


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """A limit of a group in bytes, and what of it is in use and cannot be taken back at once."""

    bytes: int
    used: int
    file: str
    group: str

    @property
    def free(self) -> int:
        return max(0, self.bytes - self.used)

    @property
    def words(self) -> str:
        return f"the cgroup's {self.file} ({self.group})"


@dataclass(frozen=True, slots=True)
class Quota:
    """Processors' worth of time that a group may use, and where it says so."""

    processors: int
    words: str


def memory_limits(root: Path = Path("/"), process: str = "self") -> list[MemoryLimit]:
    """Every memory limit that `process` (an id, or self) is under, the innermost first.

    `root` stands for the root folder of the system. Empty where there is none.
    """
    return limits_of(memory_groups(root, process))


def limits_of(groups: list[Group]) -> list[MemoryLimit]:
    """The limits that these groups set now; they come as `memory_groups` gives them."""
    found: list[MemoryLimit] = []
    for group in groups:
        found += _limits_set(group)
    return found + [limit for group in groups[-1:] for limit in _limit_above(group)]


def memory_groups(root: Path = Path("/"), process: str = "self") -> list[Group]:
    """The groups of `process` that count its memory, the innermost first."""
    groups = [
        g for g in _groups(root, process, "memory") if number(g, _USED[g.version]) is not None
    ]
    apart = [i for i, group in enumerate(groups) if _text(group, "memory.use_hierarchy") == "0"]
    # A v1 group that does not count its children does not limit them.
    return groups[: max(apart[0], 1)] if apart else groups


def quotas(root: Path = Path("/"), process: str = "self") -> list[Quota]:
    """Every limit on processor time that `process` is under, rounded up to whole processors."""
    found = []
    for group in _groups(root, process, "cpu"):
        if group.version == 2:
            file, (quota, period) = "cpu.max", _words(group, "cpu.max")
        else:
            file = "cpu.cfs_quota_us"
            quota, period = _text(group, file), _text(group, "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):
            processors = max(1, math.ceil(int(quota) / int(period)))
            found.append(Quota(processors, f"the cgroup's {file} ({group.name})"))
    return found


def counter(group: Group, file: str, name: str) -> int:
    """The number behind `name` in a file of "name number" lines, 0 where it is not there."""
    for line in _text(group, file).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0


def number(group: Group, file: str) -> int | None:
    """The bytes or count in a file of one number; None for "max", no limit and no such file."""
    text = _text(group, file)
    return int(text) if text.isdecimal() and int(text) < NO_LIMIT else None


def _limits_set(group: Group) -> Iterator[MemoryLimit]:
    for file in _LIMITS[group.version]:
        limit = number(group, file)
        if limit is not None:
            yield MemoryLimit(limit, _unreclaimable(group), file, group.name)


def _limit_above(top: Group) -> Iterator[MemoryLimit]:
    """What v1 tells of limits above the uppermost group in sight; theirs in use is not known."""
    if top.version != 1:
        return
    above = counter(top, "memory.stat", "hierarchical_memory_limit")
    if 0 < above < (number(top, "memory.limit_in_bytes") or NO_LIMIT):
        yield MemoryLimit(above, _unreclaimable(top), "hierarchical_memory_limit", top.name)


def _unreclaimable(group: Group) -> int:
    """Bytes in use without files read long ago, which are given up before memory is refused."""
    used = number(group, _USED[group.version]) or 0
    return max(0, used - counter(group, "memory.stat", _CACHE[group.version]))


def _groups(root: Path, process: str, controller: str) -> list[Group]:
    """The groups of a controller in both versions, the innermost first."""
    try:
        lines = (root / "proc" / process / "cgroup").read_text().splitlines()
    except OSError:
        return []
    mounts = read_mounts(root)
    found: list[Group] = []
    for line in lines:
        _id, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        version = 1 if names else 2
        if version == 1 and controller not in names.split(","):
            continue
        found += _ancestors(root, path, version, _mounts_of(mounts, version, controller))
    return found


def _mounts_of(mounts: list[Mount], version: int, controller: str) -> list[Mount]:
    if version == 2:
        return [mount for mount in mounts if mount.kind == "cgroup2"]
    return [m for m in mounts if m.kind == "cgroup" and controller in m.options]


def _ancestors(root: Path, path: str, version: int, mounts: list[Mount]) -> Iterator[Group]:
    """The group at `path` and those above it, as far up as the mount goes."""
    if not mounts:
        return
    # One that shows the group itself is worth more than one that shows another part of the tree.
    mount = next((m for m in mounts if _is_within(path, m.inner)), mounts[-1])
    point = PurePosixPath(mount.point)
    if _is_within(path, mount.inner):
        inside = PurePosixPath(path).relative_to(mount.inner)
    else:
        # Moved out of its namespace ("/../job"), or mounted from one above: the way from the mount
        # to the group is unknown, and its top is an ancestor, or the group itself.
        inside = PurePosixPath()
    for part in (inside, *inside.parents):
        name = str(PurePosixPath("/") / mount.inner.lstrip("/") / part)
        yield Group(root / str(point / part).lstrip("/"), name, version)


def _is_within(path: str, inner: str) -> bool:
    there = PurePosixPath(inner)
    here = PurePosixPath(path)
    return ".." not in here.parts and (here == there or there in here.parents)


def _text(group: Group, file: str) -> str:
    """What a file of a group says, nothing where it is missing: not every group has every one."""
    try:
        return (group.folder / file).read_text().strip()
    except OSError:
        return ""


def _words(group: Group, file: str) -> tuple[str, str]:
    first, _, second = _text(group, file).partition(" ")
    return first, second
