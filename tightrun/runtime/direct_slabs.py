"""Layers that are read straight from the checkpoint's files: no second copy on the disk.

A slab is the enclosing 4 KiB ranges of the layer's tensors, one after another, so that every tensor
keeps its offset in the file modulo 4096. Views therefore begin at addresses aligned to their
element only, which the processors' and the devices' products take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tightrun.runtime.checkpoint_files import StoredTensor
from tightrun.runtime.slab_layout import DISK_GRAIN, LayerParameter, SlabLayout, round_up


@dataclass(frozen=True, slots=True)
class FileRun:
    """Bytes [begin, end) of a file, both multiples of DISK_GRAIN, that lie at `slab_offset`."""

    path: Path
    begin: int
    end: int
    slab_offset: int


@dataclass(frozen=True, slots=True)
class DirectLayout:
    layout: SlabLayout
    runs: tuple[FileRun, ...]


def direct_layout(
    layer: int, parameters: tuple[LayerParameter, ...], plain: Mapping[str, StoredTensor]
) -> DirectLayout | None:
    """How the layer is read without conversion; None if it needs one.

    It does where a parameter is made of several stored tensors, has another dtype than its stored
    one, or begins between two elements.
    """
    stored = [plain.get(p.name) for p in parameters]
    found = [
        s
        for s, p in zip(stored, parameters, strict=True)
        if s is not None and s.dtype == p.dtype and s.offset % p.dtype.itemsize == 0
    ]
    if not found or len(found) < len(parameters):
        return None
    runs = _merge(found)
    offsets = tuple(_slab_offset(s, runs) for s in found)
    nbytes = sum(run.end - run.begin for run in runs)
    return DirectLayout(SlabLayout(layer, nbytes, parameters, offsets), runs)


def _merge(found: list[StoredTensor]) -> tuple[FileRun, ...]:
    """The enclosing ranges, those that touch or overlap made one."""
    ranges: list[tuple[Path, int, int]] = []
    for stored in sorted(found, key=lambda s: (s.path, s.offset)):
        begin = stored.offset // DISK_GRAIN * DISK_GRAIN
        end = round_up(stored.offset + stored.nbytes, DISK_GRAIN)
        if ranges and ranges[-1][0] == stored.path and begin <= ranges[-1][2]:
            path, first, last = ranges[-1]
            ranges[-1] = (path, first, max(last, end))
        else:
            ranges.append((stored.path, begin, end))
    runs = []
    at = 0
    for path, begin, end in ranges:
        runs.append(FileRun(path, begin, end, at))
        at += end - begin
    return tuple(runs)


def _slab_offset(stored: StoredTensor, runs: tuple[FileRun, ...]) -> int:
    run = next(r for r in runs if r.path == stored.path and r.begin <= stored.offset < r.end)
    return run.slab_offset + stored.offset - run.begin
