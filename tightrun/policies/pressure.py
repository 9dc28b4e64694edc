"""When a run is to shrink because the memory of its machine or control group runs short: before
the kernel ends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Memory is short where less than this share of the budget is left, or so many bytes.
SHORT_SHARE = 0.02
SHORT_BYTES = 32 * 2**20
# It is short no more where three times as much is left, for so long.
RELIEF = 3
CALM_S = 30.0
# Going over memory.high is a sign only where little could be given up for it.
NEAR = 5
# The part of the time in which nothing can run for want of memory.
STALLED_SHARE = 0.2
# Giving back what was freed is tried first; then the run shrinks, and again where that was too
# little, each time a while later: it takes passes until a smaller one shows.
FIRST_S = 1.5
AGAIN_S = 10.0

Step = Literal["nothing", "give back", "shrink", "relieved"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What was seen at `at_s`. `free_bytes` None: nothing says so. The counts never fall."""

    at_s: float
    free_bytes: int | None
    oom_kills: int = 0
    high_events: int = 0
    stalled_share: float = 0.0


class Pressure:
    """Says what is to be done, from one reading to the next. `budget_bytes` is what the run may
    use of the memory that is read."""

    def __init__(self, budget_bytes: int) -> None:
        self.short_bytes = max(SHORT_BYTES, int(SHORT_SHARE * budget_bytes))
        self.reason = ""
        self._last: Reading | None = None
        self._pressed = False
        self._due_s = 0.0
        self._roomy_since_s: float | None = None

    @property
    def pressed(self) -> bool:
        """Whether memory is short, or was until a moment ago."""
        return self._pressed

    def look(self, reading: Reading) -> Step:
        """Take in a reading; `reason` then says why it is more than nothing."""
        why = self._short(reading)
        self._last = reading
        if why:
            return self._press(reading.at_s, why)
        if not self._pressed or not self._has_room(reading):
            self._roomy_since_s = None
            return "nothing"
        if self._roomy_since_s is None:
            self._roomy_since_s = reading.at_s
        if reading.at_s - self._roomy_since_s < CALM_S:
            return "nothing"
        self._pressed = False
        return "relieved"

    def _press(self, now_s: float, why: str) -> Step:
        self.reason, self._roomy_since_s = why, None
        if not self._pressed:
            self._pressed, self._due_s = True, now_s + FIRST_S
            return "give back"
        if now_s < self._due_s:
            return "nothing"
        self._due_s = now_s + AGAIN_S
        return "shrink"

    def _short(self, reading: Reading) -> str:
        """Why memory is short; nothing if it is not."""
        last, free = self._last or reading, reading.free_bytes
        if reading.oom_kills > last.oom_kills:
            return "the kernel killed a process of this control group for its memory"
        if free is not None and free < self.short_bytes:
            return f"{free / 2**20:,.0f} MiB are left"
        if reading.high_events > last.high_events and (
            free is None or free < NEAR * self.short_bytes
        ):
            return "the control group is over its memory.high"
        if reading.stalled_share > STALLED_SHARE:
            return f"{100 * reading.stalled_share:.0f} % of the time nothing can run for want of it"
        return ""

    def _has_room(self, reading: Reading) -> bool:
        free = reading.free_bytes
        return free is None or free > RELIEF * self.short_bytes
