"""What reading a disk and computing take from each other, where one processor does both: the
system's part of a read, the threads that wait for it, and the memory both need."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median

from tightrun.runtime.device import Device, FileRange, Move, Transfer, Urgency

# Turns, with reading and without: a machine changes its speed meanwhile.
TURN_S = 0.3
TURNS = 3
MOST = 0.9
# What ends a turn is waited for.
PIECE = 16 * 2**20


def lost_beside(
    device: Device, disk_moves: Sequence[Move], bytes_per_s: float, work: Callable[[], object]
) -> tuple[float, float]:
    """The shares, 0 to MOST, of computing (`work` over and over) that is lost while the disk is
    read, and of the disk's `bytes_per_s` that is lost while something is computed.

    None is lost on a GPU, which computes while the processor reads. Raises what a read raises.
    """
    if device.torch.type != "cpu" or not disk_moves or not bytes_per_s:
        return 0.0, 0.0
    work()
    computing, reading = [], []
    for _ in range(TURNS):
        alone = _runs_per_s(work)
        with _reading(device, disk_moves) as read:
            computing.append(1 - _runs_per_s(work) / alone)
        reading.append(1 - read.bytes_per_s / bytes_per_s)
    takes = _share(median(computing))
    return takes, min(_share(median(reading)), 1 - takes)


def _share(lost: float) -> float:
    return min(MOST, max(0.0, lost))


def _runs_per_s(work: Callable[[], object]) -> float:
    runs, began = 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < TURN_S:
        work()
        runs += 1
    return runs / seconds


class _Read:
    """What was read, in how many seconds, and the error that ended it."""

    def __init__(self) -> None:
        self.nbytes = 0
        self.seconds = 0.0
        self.error: Exception | None = None

    @property
    def bytes_per_s(self) -> float:
        return self.nbytes / self.seconds if self.seconds else 0.0


@contextmanager
def _reading(device: Device, moves: Sequence[Move]) -> Iterator[_Read]:
    """The disk is read, without a pause, as long as this lasts."""
    over, read = threading.Event(), _Read()
    pieces = [piece for move in moves for piece in _pieces(move)]

    def send(number: int) -> Transfer:
        piece = pieces[number % len(pieces)]
        return device.disk.send([piece], Urgency.STORE, "probe")

    def keep_reading() -> None:
        began, number = time.perf_counter(), 0
        coming = send(number)
        while True:
            number += 1
            # The next one is sent for before this one is there: the disk never waits.
            under_way, coming = coming, send(number)
            device.settle(under_way)
            read.nbytes += pieces[(number - 1) % len(pieces)].nbytes
            read.seconds = time.perf_counter() - began
            if over.is_set():
                device.settle(coming)
                return

    def run() -> None:
        try:
            keep_reading()
        except Exception as error:  # it is raised by whoever waits
            read.error = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield read
    finally:
        over.set()
        thread.join()
    if read.error is not None:
        raise read.error


def _pieces(move: Move) -> Iterator[Move]:
    source = move.source
    assert isinstance(source, FileRange)
    for at in range(0, source.nbytes, PIECE):
        size = min(PIECE, source.nbytes - at)
        yield Move(
            move.target[at : at + size], FileRange(source.descriptor, source.offset + at, size)
        )
