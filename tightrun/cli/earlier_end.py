"""How a run came to its end that wrote none: killed for its memory, as far as can be told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from tightrun.cli import units
from tightrun.runtime.memory_watch import MemoryWatch

# What is written every so often while a run has nothing else to tell.
ALIVE_EVENT = "alive"
# Memory was near its end where this share of it was in use when the run was last heard.
NEAR = 0.95


@dataclass(frozen=True, slots=True)
class EarlierEnd:
    """The end of a run that closed nothing.

    `used_bytes` of `limit_bytes` were in use when it was last heard, 0 where that is not known;
    `out_of_memory` is what that, the kernel's counts or its own words make likely. `error` is the
    one it told of, if any.
    """

    heard: str
    used_bytes: int = 0
    limit_bytes: int = 0
    out_of_memory: bool = False
    error: str = ""

    @property
    def text(self) -> str:
        heard = f"last heard at {self.heard}"
        if self.error:
            return f"the previous run broke off: {self.error} ({heard})"
        if not self.out_of_memory:
            return f"the previous run ended without a word, {heard}"
        at = f" at {units.size_of(self.used_bytes, self.limit_bytes)}" if self.used_bytes else ""
        return f"the previous run was killed, likely out of memory{at} ({heard})"


def memory_figures(watch: MemoryWatch) -> dict[str, Any]:
    """The memory as it is now, for an event that may turn out to be a run's last."""
    return {"group": watch.group, "rss": psutil.Process().memory_info().rss, **asdict(watch.read())}


def earlier_end(
    events: Iterable[Mapping[str, Any]], watch: MemoryWatch, run: int
) -> EarlierEnd | None:
    """How the run of that number ended, by its events and what the system says now; None if it
    has none. To be asked for a run that neither lives nor has ended."""
    heard, error, short = "", "", False
    memory: Mapping[str, Any] = {}
    budget = 0
    for event in events:
        if event.get("run", run) != run:
            continue
        name = event["event"]
        heard = event["time"]
        if name == "started":
            error, short, memory, budget = "", False, {}, 0
        elif name == "error":
            error = str(event.get("error", ""))
        elif name in ("memory_short", "memory_relieved"):
            short = name == "memory_short"
        memory = event.get("memory") or memory
        budget = event.get("cpu_budget") or budget
    if not heard:
        return None
    used, free = memory.get("rss") or 0, memory.get("free_bytes")
    limit = used + free if free is not None else budget
    near = 0 < limit * NEAR <= used
    likely = not error and (near or short or _killed_since(memory, watch))
    return EarlierEnd(heard, used, max(used, limit), likely, error)


def _killed_since(memory: Mapping[str, Any], watch: MemoryWatch) -> bool:
    """Whether the kernel has killed in the control group the run was in, if we are in it too."""
    if not memory or memory.get("group") != watch.group:
        return False
    return watch.read().oom_kills > int(memory.get("oom_kills", 0))
