"""Slabs on disk on their way through host memory, read ahead of the link to the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from tightrun.runtime.device import Device, Happening, Transfer, Urgency
from tightrun.runtime.slab import Slab

READS_PER_SLAB = 16  # so that the way on to the device can begin with the first of them


@dataclass(slots=True)
class Staged:
    """A slab in a staging slot: what brings it there, and what takes it on from there."""

    slab: Slab
    slot: int
    buffer: torch.Tensor
    reads: list[tuple[int, int, Transfer]] = field(default_factory=list)
    sent: list[tuple[int, int, Transfer]] = field(default_factory=list)
    before: list[tuple[int, int, Transfer]] = field(default_factory=list)

    def reads_of(self, begin: int, end: int) -> list[Happening]:
        """What must have happened, and well, before bytes [begin, end) may be taken on."""
        return [read for first, last, read in self.reads if first < end and begin < last]


class ReadAhead:
    """Reads slabs in the order of their ring into `staging` slots of host memory.

    A read is sent to the disk link as soon as all that leaves its staging slot is sent to the
    link to the device, and begins when those bytes have left: the disk never rests while a slot
    is free, without anybody watching.
    """

    def __init__(self, device: Device, slabs: Sequence[Slab], staging: int) -> None:
        self._device = device
        self._slabs = slabs
        self._next = 0
        size = max(slab.nbytes for slab in slabs)
        self._slots = [device.empty_host(size, "staging") for _ in range(staging)]
        # Free staging slots, each with the transfers that still touch it.
        self._free: deque[tuple[int, list[tuple[int, int, Transfer]]]] = deque(
            (slot, []) for slot in range(staging)
        )
        self._ahead: deque[Staged] = deque()
        self.nbytes = 0  # read so far

    def fill(self) -> None:
        """Send reads for every free staging slot."""
        while self._free:
            self._read()

    def take(self, slab: Slab) -> Staged:
        """The slab in its staging slot, its reads under way; what is ahead of it is given up."""
        while self._ahead and self._ahead[0].slab is not slab:
            self.give_back(self._ahead.popleft())
        if not self._ahead:
            self._next = self._slabs.index(slab)
            self._read()
        return self._ahead.popleft()

    def give_back(self, staged: Staged) -> None:
        """No more will be taken from the staging slot than what is sent already."""
        sent, size = staged.sent, staged.slab.nbytes
        unsent = [read for read in staged.reads if not sent or read[1] > sent[-1][1]]
        # A larger slab that was here before may still be on its way out beyond the end of this one.
        beyond = [way for way in staged.before if way[1] > size and not way[2].done]
        self._free.append((staged.slot, beyond + sent + unsent))

    def _read(self) -> None:
        """Read the next slab of the ring into the staging slot that has been free longest."""
        slot, touching = self._free.popleft()
        slab = self._slabs[self._next]
        self._next = (self._next + 1) % len(self._slabs)
        staged = Staged(slab, slot, self._slots[slot], before=touching)
        step = -(-slab.nbytes // (READS_PER_SLAB * slab.grain)) * slab.grain
        for begin in range(0, slab.nbytes, step):
            end = min(slab.nbytes, begin + step)
            moves = slab.moves(begin, end, staged.buffer)
            if not moves:
                continue
            name = f"weights {slab.layer} {len(staged.reads)}"
            after = [way for first, last, way in touching if first < end and begin < last]
            read = self._device.disk.send(moves, Urgency.WEIGHTS, name, after)
            staged.reads.append((begin, end, read))
            self.nbytes += read.nbytes
        self._ahead.append(staged)
