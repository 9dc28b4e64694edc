"""A device without threads and without time: what a schedule would do, computed event by event.

Computing takes the time it is said to take, links move at the rates given, and both are exact:
the bytes of a transfer land when its clock says so, the results of the work are real. Schedules
are tested on it, and any mistake in what waits for what shows in the results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from tightrun.runtime.device import (
    FileRange,
    Happening,
    HostLane,
    LaneSpan,
    Link,
    Move,
    Urgency,
)
from tightrun.runtime.fake_clock import Clock, Item, Lane, Piece
from tightrun.runtime.memory import WORKSPACE, Ledger

PIECE_BYTES = 4 * 2**20
ALIGNMENT = 4096


class FakeLink:
    """A link of the fake device: `latency_s` for each move, then `bytes_per_s`."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        bytes_per_s: float,
        latency_s: float,
        piece_bytes: int,
        delay: Callable[[str], float] | None,
    ) -> None:
        assert bytes_per_s > 0
        self.name = name
        self.moved_bytes = 0
        self.busy_s = 0.0
        self.bytes_per_s = bytes_per_s  # may be changed in mid-run
        self._latency_s = latency_s
        self._piece_bytes = piece_bytes
        self._delay = delay
        self._lane = Lane(name, clock)

    def send(
        self,
        moves: Sequence[Move],
        urgency: Urgency,
        name: str,
        after: Sequence[Happening] = (),
    ) -> Item:
        """Take the moves on; they begin when all of `after` has happened, and well."""
        nbytes = sum(move.nbytes for move in moves)
        delay = self._delay(name) if self._delay else 0.0
        pieces = [piece for move in moves for piece in self._pieces(move)]
        return self._lane.put(Item(name, pieces, tuple(after), urgency, nbytes, delay))

    def _pieces(self, move: Move) -> Iterator[Piece]:
        for begin in range(0, move.nbytes, self._piece_bytes):
            end = min(move.nbytes, begin + self._piece_bytes)
            seconds = (end - begin) / self.bytes_per_s + (0.0 if begin else self._latency_s)
            yield Piece(seconds, partial(self._land, move, begin, end, seconds))

    def _land(self, move: Move, begin: int, end: int, seconds: float) -> None:
        self.busy_s += seconds
        self.moved_bytes += end - begin
        if move.target.is_meta:
            return
        if isinstance(move.source, FileRange):
            _read(move.source, begin, move.target[begin:end])
        else:
            move.target[begin:end].copy_(move.source[begin:end])


class FakeHostLane:
    """The host lane of the fake device: work in the order it was sent."""

    def __init__(self, clock: Clock, durations: Callable[[str], float]) -> None:
        self.busy_s = 0.0
        self._durations = durations
        self._lane = Lane("cpu", clock, strict=True)

    def send(self, work: Callable[[], None], name: str, after: Sequence[Happening] = ()) -> Item:
        """Take the work on; it begins when all of `after` has happened, and well."""
        seconds = self._durations(name)

        def land() -> None:
            self.busy_s += seconds
            work()

        return self._lane.put(Item(name, [Piece(seconds, land)], tuple(after)))


class FakeDevice:
    """A device whose `compute(name, work)` takes `durations(name)` seconds of its own clock.

    `h2d`, `d2h` and `disk_read` are bytes/s. `delay(name)` holds the end of a transfer back by
    so many seconds. `runs_ahead`: the caller does not wait for what it computes, as on CUDA, so
    that all it does takes no time until it settles. On the device "meta" no bytes are moved.
    """

    def __init__(
        self,
        durations: Callable[[str], float],
        h2d: float,
        d2h: float = 1e9,
        disk_read: float = 1e9,
        latency_s: float = 0.0,
        memory_bytes: int = 2**40,
        host_bytes: int = 2**40,
        kind: str = "fake",
        delay: Callable[[str], float] | None = None,
        runs_ahead: bool = False,
        piece_bytes: int = PIECE_BYTES,
        torch_device: torch.device | None = None,
    ) -> None:
        self.kind = kind
        self.torch = torch_device or torch.device("cpu")
        self.memory = Ledger("fake device memory", memory_bytes)
        self.host_memory = self.memory if kind == "cpu" else Ledger("fake host memory", host_bytes)
        self._clock = Clock()
        self._durations = durations
        self._runs_ahead = runs_ahead
        self.computing_s = 0.0
        self.waited_s = 0.0
        self._computing = Lane("compute", self._clock, strict=True)
        self._gates: tuple[Happening, ...] = ()
        self._last: Item | None = None

        def link(name: str, bytes_per_s: float) -> FakeLink:
            return FakeLink(name, self._clock, bytes_per_s, latency_s, piece_bytes, delay)

        self.link_in: Link = link("h2d", h2d)
        self.link_out: Link = link("d2h", d2h)
        self.disk: Link = link("disk", disk_read)
        self.host: HostLane = FakeHostLane(self._clock, durations)

    def now(self) -> float:
        return self._clock.now

    def empty(self, nbytes: int, arena: str) -> torch.Tensor:
        """Device memory, uint8 `[nbytes]`, aligned to 4096 bytes, filled with rubbish."""
        self.memory.take(nbytes, arena)
        return self._aligned(nbytes)

    def empty_host(self, nbytes: int, arena: str) -> torch.Tensor:
        """Host memory, uint8 `[nbytes]`, aligned to 4096 bytes."""
        self.host_memory.take(nbytes, arena)
        return self._aligned(nbytes)

    def compute(self, name: str, work: Callable[[], None], workspace_bytes: int = 0) -> None:
        """Do the work on the compute lane; the clock goes on to its end, but if `runs_ahead`."""
        self.memory.take(workspace_bytes, WORKSPACE)
        self.memory.give(workspace_bytes, WORKSPACE)
        seconds = self._durations(name)

        def land() -> None:
            self.computing_s += seconds
            work()

        self._put(Item(name, [Piece(seconds, land)]))

    def mark(self) -> Item:
        """The point at which everything computed so far is done."""
        return self._put(Item("", []))

    def wait(self, *happenings: Happening) -> None:
        """Let what is computed from now on begin after these."""
        if self._runs_ahead:
            self._gates += happenings
        else:
            self.settle(*happenings)

    def settle(self, *happenings: Happening) -> None:
        """Let the clock go on until these have happened. Raises their errors."""
        self._clock.run_until(happenings)

    def spans(self) -> list[LaneSpan]:
        """What the lanes did since the last call, as far as it is over, in order of its end."""
        log, self._clock.log = self._clock.log, []
        return log

    def close(self) -> None:
        """Nothing to end."""

    def _put(self, item: Item) -> Item:
        # What is computed ahead comes after the last one by name too, so that its error is passed
        # on, as a GPU's is; where the caller waits, the error is raised at once and over with.
        item.after = self._gates if self._last is None else (*self._gates, self._last)
        self._gates = ()
        self._computing.put(item)
        if self._runs_ahead:
            self._last = item
        else:
            self.settle(item)
        return item

    def _aligned(self, nbytes: int) -> torch.Tensor:
        room = torch.full((nbytes + ALIGNMENT,), 0xA5, dtype=torch.uint8, device=self.torch)
        if room.is_meta:
            return room[:nbytes]
        first = -room.data_ptr() % ALIGNMENT
        return room[first : first + nbytes]


def _read(source: FileRange, begin: int, target: torch.Tensor) -> None:
    """Fill the target from the file; it may reach past the end of the file, but not begin there."""
    buffer = bytearray(target.numel())
    count = os.preadv(source.descriptor, [buffer], source.offset + begin)
    if count < min(target.numel(), source.nbytes - begin):
        raise OSError(f"the file ends at byte {source.offset + begin + count:,}: it was cut short")
    target.copy_(torch.frombuffer(buffer, dtype=torch.uint8))
