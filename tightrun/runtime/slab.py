"""What the weight loader knows of one layer's weights: bytes to bring into a slot, views to bind.

A slab lies on the host or on the disk. Its bytes keep their order and place on the way: byte i of
the slab is byte i of the slot, and of a staging slot in host memory if it goes through one.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch

from tightrun.runtime.device import Move

Tier = Literal["host", "disk"]


class Bindings(Protocol):
    """The parameters of one layer as views on one slot, prepared once."""

    def bind(self) -> None:
        """Make the layer's modules use the views. Copies nothing."""


class Slab(Protocol):
    """The weights of one layer as one flat run of `nbytes` bytes, a multiple of 4096."""

    layer: int
    nbytes: int
    tier: Tier
    grain: int  # cut points are multiples of it

    def moves(self, begin: int, end: int, slot: torch.Tensor) -> list[Move]:
        """The copies that bring bytes [begin, end) to the same place in `slot`, uint8 [>= nbytes].

        `begin` is a multiple of `grain`, `end` is one or `nbytes`. Bytes between the parameters
        may stay as they are.
        """

    def bindings(self, slot: torch.Tensor) -> Bindings:
        """The layer's parameters as views on `slot`, for as long as the slot lives."""
