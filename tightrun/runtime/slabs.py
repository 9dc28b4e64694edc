"""One layer's weights as a slab, in host memory or in ranges of files."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import torch

from tightrun.runtime.device import FileRange, Move
from tightrun.runtime.slab import Tier
from tightrun.runtime.slab_layout import DISK_GRAIN, HOST_GRAIN, LayerBindings, SlabLayout


class HostSlab:
    """A slab whose bytes lie in host memory; a slab of a resident layer may be moved from there."""

    tier: Tier = "host"
    grain = HOST_GRAIN

    def __init__(self, layout: SlabLayout, place: torch.Tensor) -> None:
        self.layout = layout
        self.layer = layout.layer
        self.nbytes = layout.nbytes
        self._place = place[: layout.nbytes]

    def moves(self, begin: int, end: int, slot: torch.Tensor) -> list[Move]:
        """One copy: bytes [begin, end) of the slab to the same place in `slot`."""
        _check_cut(self, begin, end)
        return [Move(slot[begin:end], self._place[begin:end])] if begin < end else []

    def bindings(self, slot: torch.Tensor) -> LayerBindings:
        return self.layout.bindings(slot)


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes of a file that follow one another in the slab too.

    `nbytes` ends at the file's end, if that comes before the next multiple of DISK_GRAIN.
    """

    descriptor: int
    file_offset: int
    slab_offset: int
    nbytes: int


class DiskSlab:
    """A slab whose bytes are runs of files, `slab_offset`s ascending without holes."""

    tier: Tier = "disk"
    grain = DISK_GRAIN

    def __init__(self, layout: SlabLayout, runs: tuple[Run, ...]) -> None:
        self.layout = layout
        self.layer = layout.layer
        self.nbytes = layout.nbytes
        self._runs = runs
        self._starts = [run.slab_offset for run in runs]

    def moves(self, begin: int, end: int, slot: torch.Tensor) -> list[Move]:
        """One copy for every run that [begin, end) touches."""
        _check_cut(self, begin, end)
        found = []
        for run in self._runs[max(0, bisect_right(self._starts, begin) - 1) :]:
            if run.slab_offset >= end:
                break
            first = max(begin, run.slab_offset)
            last = min(end, run.slab_offset + run.nbytes)
            if first < last:
                offset = run.file_offset + first - run.slab_offset
                part = FileRange(run.descriptor, offset, last - first)
                found.append(Move(slot[first:last], part))
        return found

    def bindings(self, slot: torch.Tensor) -> LayerBindings:
        return self.layout.bindings(slot)


def _check_cut(slab: HostSlab | DiskSlab, begin: int, end: int) -> None:
    assert 0 <= begin <= end <= slab.nbytes
    assert begin % slab.grain == 0
    assert end % slab.grain == 0 or end == slab.nbytes
