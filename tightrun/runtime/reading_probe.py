"""What reading a disk takes from computing, where the processor that reads also computes: the
system's part of a read, and the threads that wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median

from tightrun.runtime.device import Device, FileRange, Move, Urgency

# Turns, with reading and without: a machine changes its speed meanwhile.
TURN_S = 0.15
TURNS = 3
MOST = 0.9
# What ends a turn is waited for.
PIECE = 64 * 2**20


def reading_takes(device: Device, disk_moves: Sequence[Move], work: Callable[[], object]) -> float:
    """The share of computing, `work` over and over, that is lost while the disk is read: 0 to MOST.

    0.0 on a GPU, which computes while the processor reads.
    """
    if device.torch.type != "cpu" or not disk_moves:
        return 0.0
    work()
    lost = []
    for _ in range(TURNS):
        alone = _runs_per_s(work)
        with _reading(device, disk_moves):
            lost.append(1 - _runs_per_s(work) / alone)
    return min(MOST, max(0.0, median(lost)))


def _runs_per_s(work: Callable[[], object]) -> float:
    runs, began = 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < TURN_S:
        work()
        runs += 1
    return runs / seconds


@contextmanager
def _reading(device: Device, moves: Sequence[Move]) -> Iterator[None]:
    """The disk is read, without a pause, as long as this lasts."""
    over = threading.Event()

    pieces = [piece for move in moves for piece in _pieces(move)]

    def read() -> None:
        while not over.is_set():
            for move in pieces:
                device.settle(device.disk.send([move], Urgency.STORE, "probe"))
                if over.is_set():
                    return

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _pieces(move: Move) -> Iterator[Move]:
    source = move.source
    assert isinstance(source, FileRange)
    for at in range(0, source.nbytes, PIECE):
        size = min(PIECE, source.nbytes - at)
        yield Move(
            move.target[at : at + size], FileRange(source.descriptor, source.offset + at, size)
        )
