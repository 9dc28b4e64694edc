"""How near this process is to being killed for its memory: room left, kills, throttling, stalls."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tightrun.runtime.cgroups import Group, counter, limits_of, memory_groups
from tightrun.runtime.meminfo import available_bytes


@dataclass(frozen=True, slots=True)
class MemoryState:
    """What was seen at one moment.

    `free_bytes` can still be taken: the least left in any control group and in the machine, None
    if neither says so. `oom_kills` processes of this group were killed since it was made.
    `high_events` counts how often the group or one above it was over its `memory.high` and slowed
    down for it (v1 has none). Both never fall: compare two readings. `stalled_share` is the part of
    the last ten seconds in which nothing could run for want of memory (PSI "full"), 0 where the
    kernel does not tell.
    """

    free_bytes: int | None
    oom_kills: int
    high_events: int
    stalled_share: float


class MemoryWatch:
    """Reads the state of process `own` (an id, or self) of the system whose root folder is `root`.

    Its groups are looked up once; a reading opens a few small files and takes about a
    millisecond.
    """

    def __init__(self, root: Path = Path("/"), own: str = "self") -> None:
        self._root = root
        self._groups = memory_groups(root, own)

    @property
    def group(self) -> str:
        """The name of the innermost control group, in which kills are counted; "" without any."""
        return self._groups[0].name if self._groups else ""

    def read(self) -> MemoryState:
        """The state now. What the system does not offer reads as None or 0."""
        groups = self._groups
        free = [limit.free for limit in limits_of(groups)]
        available = available_bytes(self._root)
        if available is not None:
            free.append(available)
        return MemoryState(
            free_bytes=min(free, default=None),
            oom_kills=max(map(_kills, groups[:1]), default=0),
            high_events=sum(map(_throttled, groups)),
            stalled_share=self._stalled(),
        )

    def _stalled(self) -> float:
        own = [group.folder / "memory.pressure" for group in self._groups if group.version == 2]
        for path in (*own, self._root / "proc/pressure/memory"):
            try:
                text = path.read_text()
            except OSError:
                continue
            full = re.search(r"^full avg10=([\d.]+)", text, re.MULTILINE)
            if full:
                return float(full[1]) / 100
        return 0.0


def _kills(group: Group) -> int:
    file = "memory.events" if group.version == 2 else "memory.oom_control"
    return counter(group, file, "oom_kill")


def _throttled(group: Group) -> int:
    """How often this very group was over its own limit; "local" leaves its children's out."""
    if (group.folder / "memory.events.local").exists():
        return counter(group, "memory.events.local", "high")
    return counter(group, "memory.events", "high")
