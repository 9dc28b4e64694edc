"""Carries out a slab's moves by hand, and compares models parameter by parameter."""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from tightrun.runtime.device import FileRange, Move
from tightrun.runtime.slab import Slab
from tightrun.runtime.slab_layout import DISK_GRAIN, round_up


def slot_of(nbytes: int) -> torch.Tensor:
    """Memory aligned to 4096 bytes, full of a byte that is no weight by chance."""
    return torch.frombuffer(mmap.mmap(-1, nbytes), dtype=torch.uint8).fill_(0xA5)


def carry_out(moves: Sequence[Move]) -> None:
    for move in moves:
        if isinstance(move.source, FileRange):
            assert move.source.nbytes == move.nbytes
            move.target.copy_(_read(move.source))
        else:
            move.target.copy_(move.source)


def bring(slab: Slab, slot: torch.Tensor, cuts: Sequence[int] = ()) -> None:
    """The whole slab into the slot, in slices that begin at `cuts`."""
    edges = [0, *cuts, slab.nbytes]
    for begin, end in itertools.pairwise(edges):
        carry_out(slab.moves(begin, end, slot))


def assert_same(model: nn.Module, expected: nn.Module) -> None:
    """Every parameter and buffer is bitwise that of `expected`, in its dtype."""
    wanted, got = dict(_tensors(expected)), dict(_tensors(model))
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert got[name].dtype == tensor.dtype, name
        assert not got[name].is_meta, name
        assert bytes_of(got[name]).equal(bytes_of(tensor)), name


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers()


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().clone().reshape(-1).view(torch.uint8)


def _read(part: FileRange) -> torch.Tensor:
    buffer = mmap.mmap(-1, round_up(max(part.nbytes, 1), DISK_GRAIN))
    assert os.preadv(part.descriptor, [buffer], part.offset) >= part.nbytes
    return torch.frombuffer(buffer, dtype=torch.uint8)[: part.nbytes]
