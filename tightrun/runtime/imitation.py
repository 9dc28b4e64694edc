"""Numbers that stand for weights where only the time and the form of a computation matter."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from tightrun.runtime.slab_layout import SlabLayout

# A prime number of elements: no row of a matrix comes again at the same place of another.
BLOCK_ELEMENTS = 8_388_593


def overlapping_rows(like: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of that shape and dtype whose rows are random and share their memory.

    Every row begins one element further: an embedding of any size takes the memory of one row and
    one column. Vectors are ones, as the weights of norms are. It can be read, not written.
    """
    if not like.is_floating_point() or like.dim() < 2:
        return torch.ones(like.shape, dtype=like.dtype, device=device)
    length = sum(size - 1 for size in like.shape) + 1
    block = _block(length, like.dtype, device)
    return block.as_strided(tuple(like.shape), [1] * like.dim())


def random_numbers(shape: Sequence[int], scale: float, like: torch.Tensor) -> torch.Tensor:
    """A tensor of random numbers of that scale, in memory of its own, with the dtype of `like`."""
    made = torch.empty(tuple(shape), dtype=like.dtype, device=like.device)
    block = _block(min(BLOCK_ELEMENTS, prod(shape)), like.dtype, like.device)
    _fill(made, block, scale)
    return made


def fill_at_random(layout: SlabLayout, place: torch.Tensor) -> None:
    """Give the layer random weights, in `place`, uint8 `[>= layout.nbytes]`.

    Scaled so that states keep their size, and without repeated rows: the experts of a mixture are
    chosen about evenly.
    """
    blocks: dict[torch.dtype, torch.Tensor] = {}
    largest = max((p.nbytes // p.dtype.itemsize for p in layout.parameters), default=0)
    for index, parameter in enumerate(layout.parameters):
        view = layout.view(index, place)
        if not view.is_floating_point() or view.dim() < 2:
            view.fill_(1)
            continue
        if view.dtype not in blocks:
            blocks[view.dtype] = _block(min(BLOCK_ELEMENTS, largest), view.dtype, place.device)
        _fill(view, blocks[view.dtype], parameter.shape[-1] ** -0.5)


def _fill(target: torch.Tensor, block: torch.Tensor, scale: float) -> None:
    flat = target.view(-1)
    for at in range(0, flat.numel(), len(block)):
        part = flat[at : at + len(block)]
        torch.mul(block[: len(part)], scale, out=part)


def _block(count: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(count, generator=generator, device=device).to(dtype)
