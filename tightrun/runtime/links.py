"""A link as a thread: real copies in pieces, by urgency, held to a bandwidth.

Pieces are small, so that an urgent transfer waits for a piece and never for a whole slab.
"""

from __future__ import annotations

import ctypes
import heapq
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import torch

from tightrun.runtime.device import FileRange, Happening, LaneSpan, Move, Urgency
from tightrun.runtime.happenings import LinkClosedError, ThreadTransfer, when_all
from tightrun.runtime.lane_log import LaneLog

PIECE_BYTES = 4 << 20
LEAST_PIECE_BYTES = 64 << 10
# A slow link takes smaller pieces: no piece keeps an urgent transfer waiting much longer.
PIECE_S = 0.008
# A link whose thread was late catches up by as much as this, and no more.
CATCH_UP_S = 0.05
# What it takes a sleeping thread to be back: it is woken so much before a step is due.
WAKE_S = 50e-6
MOVES_AT_ONCE = 64
# Giving the interpreter's lock away can cost milliseconds; so short a copy keeps it.
HELD_BYTES = 64 << 10
_Memmove = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_copy_holding = _Memmove(("memmove", ctypes.PyDLL(None)))

Mover = Callable[[Move, int, int], None]
Delay = Callable[[str], float]


def copy_memory(move: Move, begin: int, nbytes: int) -> None:
    """Copy bytes [begin, begin + nbytes) of a move between two places in memory."""
    assert isinstance(move.source, torch.Tensor)
    source, target = move.source.data_ptr() + begin, move.target.data_ptr() + begin
    copy = ctypes.memmove if nbytes > HELD_BYTES else _copy_holding
    copy(target, source, nbytes)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a link is: `latency_s` passes for every move, then its bytes at `bytes_per_s`."""

    bytes_per_s: float = math.inf
    latency_s: float = 0.0

    @property
    def piece_bytes(self) -> int:
        if math.isinf(self.bytes_per_s):
            return PIECE_BYTES
        wanted = max(LEAST_PIECE_BYTES, int(self.bytes_per_s * PIECE_S))
        return min(PIECE_BYTES, wanted // LEAST_PIECE_BYTES * LEAST_PIECE_BYTES)

    def seconds(self, moves: int, nbytes: int) -> float:
        return moves * self.latency_s + nbytes / self.bytes_per_s


class _Moving(ThreadTransfer):
    """A transfer, how far it has been handed out, and how much of that is still under way."""

    def __init__(self, name: str, moves: Sequence[Move]) -> None:
        super().__init__(name, sum(move.nbytes for move in moves))
        self._moves = [move for move in moves if move.nbytes]
        self._move = 0
        self._begin = 0
        self.ready_s = 0.0
        self.under_way = 0
        self.failure: BaseException | None = None
        self.run_start_s = 0.0
        self.run_bytes = 0

    @property
    def handed_out(self) -> bool:
        return self._move == len(self._moves)

    def abandon(self, failure: BaseException) -> None:
        self.failure = self.failure or failure
        self._move = len(self._moves)

    def forget_moves(self) -> None:
        self._moves = []
        self._move = 0

    def take(self, nbytes: int, moves: int) -> list[tuple[Move, int, int]]:
        """The next pieces `(move, begin, bytes)`, of at most `nbytes` in sum."""
        taken: list[tuple[Move, int, int]] = []
        while nbytes and not self.handed_out and len(taken) < moves:
            move = self._moves[self._move]
            size = min(nbytes, move.nbytes - self._begin)
            taken.append((move, self._begin, size))
            nbytes -= size
            self._begin += size
            if self._begin == move.nbytes:
                self._move, self._begin = self._move + 1, 0
        return taken


@dataclass(frozen=True, slots=True)
class _Step:
    """What a worker does next, and when it is to begin and to be over."""

    transfer: _Moving
    pieces: list[tuple[Move, int, int]]
    nbytes: int
    begin_s: float
    due_s: float


class ThreadLink:
    """A link of `workers` threads, each with one step of a transfer in hand.

    The schedule is absolute: a step is due so long after the one before, however late its thread
    woke, so that the rate over many steps is the asked one. `delay` gives, by a transfer's name,
    seconds for which it is held back once all it comes after has happened; others overtake it.
    Threads begin with the first transfer.
    """

    def __init__(
        self,
        name: str,
        mover: Mover,
        log: LaneLog,
        *,
        pace: Pace | None = None,
        workers: int = 1,
        moves_at_once: int = MOVES_AT_ONCE,
        delay: Delay | None = None,
    ) -> None:
        self.name = name
        self.moved_bytes = 0
        self.busy_s = 0.0
        self._mover = mover
        self._log = log
        self._pace = pace or Pace()
        self._workers = workers
        self._moves_at_once = moves_at_once
        self._delay = delay
        self._changed = threading.Condition()
        self._order = count()
        self._ready: list[tuple[Urgency, int, _Moving]] = []
        self._held: list[tuple[float, int, Urgency, _Moving]] = []
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._last: _Moving | None = None
        self._under_way = 0
        self._free_s = 0.0
        self._ended_s = 0.0

    def send(
        self,
        moves: Sequence[Move],
        urgency: Urgency,
        name: str,
        after: Sequence[Happening] = (),
    ) -> ThreadTransfer:
        """Take the moves on; see `Link`. May be called by any thread."""
        for move in moves:
            _check(move)
        transfer = _Moving(name, moves)
        order = next(self._order)
        when_all(after, lambda error: self._let_begin(transfer, urgency, order, error))
        return transfer

    def close(self) -> None:
        """End the threads; what is not over fails with LinkClosedError."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        with self._changed:
            waiting = [*(entry[-1] for entry in self._ready), *(entry[-1] for entry in self._held)]
            left = [transfer for transfer in waiting if not transfer.handed_out]
            self._ready, self._held = [], []
        for transfer in left:
            transfer.finish(LinkClosedError(f"the link {self.name} was closed"))

    def _let_begin(
        self, transfer: _Moving, urgency: Urgency, order: int, error: BaseException | None
    ) -> None:
        now = time.perf_counter()
        with self._changed:
            if error is None and self._closed:
                error = LinkClosedError(f"the link {self.name} is closed")
            if error is None and transfer.nbytes:
                transfer.ready_s = now + (self._delay(transfer.name) if self._delay else 0.0)
                self._queue(transfer, urgency, order)
                return
        transfer.start_s = transfer.end_s = now
        transfer.finish(error)

    def _queue(self, transfer: _Moving, urgency: Urgency, order: int) -> None:
        if self._delay is None:
            heapq.heappush(self._ready, (urgency, order, transfer))
        else:
            heapq.heappush(self._held, (transfer.ready_s, order, urgency, transfer))
        if not self._threads:
            self._start()
        self._changed.notify()

    def _start(self) -> None:
        for i in range(self._workers):
            name = f"{self.name}-{i}"
            self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        sharpen_sleep()
        while (step := self._next()) is not None:
            failure = None
            try:
                for move, begin, nbytes in step.pieces:
                    self._mover(move, begin, nbytes)
            except BaseException as error:  # raised again by whoever waits for the transfer
                failure = error
            early = step.due_s - time.perf_counter()
            if early > WAKE_S and failure is None:
                time.sleep(early - WAKE_S)
            self._end(step, step.due_s - min(0.0, early), failure)

    def _next(self) -> _Step | None:
        with self._changed:
            while not self._closed:
                now = time.perf_counter()
                while self._held and self._held[0][0] <= now:
                    _, order, urgency, transfer = heapq.heappop(self._held)
                    heapq.heappush(self._ready, (urgency, order, transfer))
                while self._ready and self._ready[0][-1].handed_out:
                    heapq.heappop(self._ready)
                if self._ready:
                    return self._begin(self._ready[0][-1], now)
                self._changed.wait(self._held[0][0] - now if self._held else None)
        return None

    def _begin(self, transfer: _Moving, now: float) -> _Step:
        pieces = transfer.take(self._pace.piece_bytes, self._moves_at_once)
        if transfer.handed_out:
            heapq.heappop(self._ready)
        if self._ready or self._held:
            self._changed.notify()
        nbytes = sum(piece[2] for piece in pieces)
        paced = math.isfinite(self._pace.bytes_per_s)
        begin_s = max(self._free_s, transfer.ready_s, now - CATCH_UP_S if paced else now)
        begun = sum(1 for _, begin, _ in pieces if begin == 0)
        self._free_s = due_s = begin_s + self._pace.seconds(begun, nbytes)
        if not self._under_way:
            begin_s = self._ended_s = max(begin_s, self._ended_s)
        if transfer is not self._last:
            self._enter_run(transfer)
            transfer.run_start_s = begin_s
            transfer.start_s = transfer.start_s or begin_s
            self._last = transfer
        self._under_way += 1
        transfer.under_way += 1
        return _Step(transfer, pieces, nbytes, begin_s, due_s)

    def _end(self, step: _Step, end_s: float, failure: BaseException | None) -> None:
        transfer = step.transfer
        with self._changed:
            self._under_way -= 1
            transfer.under_way -= 1
            transfer.end_s = max(transfer.end_s, end_s)
            if failure is None:
                transfer.run_bytes += step.nbytes
                self.moved_bytes += step.nbytes
            else:
                transfer.abandon(failure)
            # The union of what the workers did: several at once count once.
            self.busy_s += max(0.0, end_s - self._ended_s)
            self._ended_s = max(self._ended_s, end_s)
            over = transfer.handed_out and not transfer.under_way
            if over:
                self._enter_run(transfer)
                transfer.forget_moves()
                if self._last is transfer:
                    self._last = None
        if over:
            transfer.finish(transfer.failure)

    def _enter_run(self, transfer: _Moving) -> None:
        """Enter what a transfer did since it was last given the link."""
        if transfer.run_bytes:
            start_s, end_s = transfer.run_start_s, transfer.end_s
            span = LaneSpan(self.name, transfer.name, start_s, end_s, transfer.run_bytes)
            self._log.enter(span)
            transfer.run_bytes = 0


def sharpen_sleep() -> None:
    """Let this thread wake on time: Linux adds 50 us to every sleep unless it is told not to."""
    set_timer_slack = 29
    ctypes.CDLL(None).prctl(set_timer_slack, 1000, 0, 0, 0)


def _check(move: Move) -> None:
    assert move.target.dtype == torch.uint8
    assert move.target.is_contiguous()
    if isinstance(move.source, FileRange):
        assert move.source.nbytes == move.nbytes
    else:
        assert move.source.dtype == torch.uint8
        assert move.source.is_contiguous()
        assert move.source.numel() == move.nbytes
