"""What the lanes did, kept until somebody asks, and the lane of what is computed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from tightrun.runtime.device import LaneSpan

# So many spans are kept if nobody asks for them; older ones are dropped.
KEPT_SPANS = 1 << 16

Stamp = TypeVar("Stamp")


class LaneLog:
    """Spans of all lanes, entered by any thread, bounded."""

    def __init__(self, kept: int = KEPT_SPANS) -> None:
        self._spans: deque[LaneSpan] = deque(maxlen=kept)

    def enter(self, span: LaneSpan) -> None:
        self._spans.append(span)

    def drain(self) -> list[LaneSpan]:
        """The spans entered since the last call, by their beginning."""
        drained = []
        # Threads go on entering: take as many as there are now, and no more.
        for _ in range(len(self._spans)):
            drained.append(self._spans.popleft())
        return sorted(drained, key=lambda span: span.start_s)


class ComputeLane(Generic[Stamp]):
    """Computing in parts: a wait, or computing inside computing, ends a part and begins another.

    `stamp` marks a point of the computing; `enter` takes the name of a part and both its ends.
    """

    def __init__(
        self, stamp: Callable[[], Stamp], enter: Callable[[str, Stamp, Stamp], None]
    ) -> None:
        self._stamp = stamp
        self._enter = enter
        self._open: list[str] = []
        self._begun: Stamp | None = None
        self._thread: int | None = None

    def run(self, name: str, work: Callable[[], None]) -> None:
        outer = self._thread
        self._end_part()
        self._open.append(name)
        self._thread = threading.get_ident()
        self._begun = self._stamp()
        try:
            work()
        finally:
            self._end_part()
            self._open.pop()
            self._thread = outer
            self._begin_part()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens meanwhile is no computing, if it is the computing thread that asks."""
        if self._thread != threading.get_ident():
            yield
            return
        self._end_part()
        try:
            yield
        finally:
            self._begin_part()

    def _begin_part(self) -> None:
        self._begun = self._stamp() if self._open else None

    def _end_part(self) -> None:
        if self._open and self._begun is not None:
            self._enter(self._open[-1], self._begun, self._stamp())
        self._begun = None
