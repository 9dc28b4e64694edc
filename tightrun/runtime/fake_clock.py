"""A clock without time: lanes of work whose ends are computed, one event after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tightrun.runtime.device import Happening, LaneSpan


@dataclass(slots=True)
class Piece:
    """The part of an item that nothing else can interrupt; `land` is done at its end."""

    seconds: float
    land: Callable[[], None] | None = None


@dataclass(slots=True, eq=False)
class Item:
    """Work of a lane, in pieces. `delay` holds its end back without keeping the lane."""

    name: str
    pieces: Iterable[Piece]
    after: Sequence[Happening] = ()
    urgency: int = 0
    nbytes: int = 0
    delay: float = 0.0
    start_s: float = -1.0
    end_s: float = -1.0
    done: bool = False
    error: Exception | None = None
    order: tuple[int, int] = (0, 0)
    rest: list[Piece] = field(default_factory=list)


class Lane:
    """Work done one piece at a time: the most urgent that may begin, then first come.

    In a strict lane nothing overtakes: it rests until what came first may begin.
    """

    def __init__(self, name: str, clock: Clock, strict: bool = False) -> None:
        self.name = name
        self.free_at = 0.0
        self.under_way: tuple[Item, Piece] | None = None
        self._clock = clock
        self._strict = strict
        self._waiting: list[Item] = []
        self._taken = 0
        clock.lanes.append(self)

    def put(self, item: Item) -> Item:
        item.rest = list(item.pieces)
        item.order = (item.urgency, self._taken)
        self._taken += 1
        self._waiting.append(item)
        self._waiting.sort(key=lambda waiting: waiting.order)
        return item

    def take_up(self) -> None:
        """Begin a piece, if none is under way and one may begin."""
        if self.under_way is not None:
            return
        ahead = self._waiting[:1] if self._strict else self._waiting
        item = next((item for item in ahead if all(way.done for way in item.after)), None)
        if item is None:
            return
        now = self._clock.now
        if item.start_s < 0:
            item.start_s = now
            item.error = next((e for way in item.after if (e := getattr(way, "error", None))), None)
        piece = item.rest.pop(0) if item.rest and item.error is None else Piece(0.0)
        self.under_way = item, piece
        self.free_at = now + piece.seconds

    def put_down(self) -> None:
        """End the piece under way, and its item with the last one."""
        assert self.under_way is not None
        (item, piece), self.under_way = self.under_way, None
        try:
            if piece.land is not None:
                piece.land()
        except Exception as error:  # raised where somebody waits for the item
            item.error = error
        if not item.rest or item.error is not None:
            self._waiting.remove(item)
            item.after = ()  # else the last item would keep all before it alive
            self._clock.end(item, self.name)


class Clock:
    """The lanes' common time, in seconds. It stands still but for `run_until`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lanes: list[Lane] = []
        self.log: list[LaneSpan] = []
        self._held: list[tuple[Item, str]] = []

    def run_until(self, items: Sequence[Happening]) -> None:
        """Go on from event to event until all of them have happened. Raises their errors."""
        while not all(item.done for item in items):
            self._next_event()
        for item in items:
            error = getattr(item, "error", None)
            if error is not None:
                raise error

    def end(self, item: Item, lane: str) -> None:
        """The item's work is over; it has happened now, or after its delay."""
        item.end_s = self.now + item.delay
        if item.delay > 0:
            self._held.append((item, lane))
        else:
            self._happen(item, lane)

    def _happen(self, item: Item, lane: str) -> None:
        item.done = True
        if item.name:
            self.log.append(LaneSpan(lane, item.name, item.start_s, item.end_s, item.nbytes))

    def _next_event(self) -> None:
        for lane in self.lanes:
            lane.take_up()
        busy = [lane for lane in self.lanes if lane.under_way is not None]
        ends = [lane.free_at for lane in busy] + [item.end_s for item, _ in self._held]
        assert ends, "what is waited for can never happen: it waits for itself"
        self.now = min(ends)
        for lane in busy:
            if lane.free_at <= self.now:
                lane.put_down()
        due = [held for held in self._held if held[0].end_s <= self.now]
        self._held = [held for held in self._held if held[0].end_s > self.now]
        for item, name in due:
            self._happen(item, name)
