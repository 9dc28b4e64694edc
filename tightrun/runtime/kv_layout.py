"""How the keys and values of a model lie in memory: uniform blocks, keys and values together.

A block holds `block_tokens` tokens of one layer. It is the unit of allocation and of every copy:
device arena, fetch workspace and host region have the same layout, so a run of blocks moves as one
plain copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tightrun.policies.shape import ModelShape


@dataclass(frozen=True, slots=True)
class LayerCache:
    """Keys `[blocks, kv_heads, block_tokens, key_dim]` and values of one layer.

    Head-major inside a block in memory, so that a kernel reads one head's keys of a block as one
    plain matrix; with `token_major` a view of `[blocks, block_tokens, kv_heads, dim]`.
    """

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def block_tokens(self) -> int:
        return self.keys.shape[2]


@dataclass(frozen=True, slots=True)
class KVLayout:
    """The blocks of a model. Every layer's block takes the bytes of the largest layer's."""

    shape: ModelShape
    block_tokens: int
    dtype: torch.dtype
    token_major: bool = False

    @property
    def block_bytes(self) -> int:
        return self.shape.kv_block_bytes(self.block_tokens, self.dtype.itemsize)

    def view(self, memory: torch.Tensor, layer: int) -> LayerCache:
        """The blocks that begin with `memory` (uint8 `[bytes]`), as one layer's."""
        shape = self.shape.layers[layer]
        typed = memory.view(self.dtype)
        stride = self.block_bytes // self.dtype.itemsize
        count = memory.numel() // self.block_bytes
        keys = self._side(typed, count, stride, 0, shape.kv_heads, shape.key_dim)
        behind = shape.key_width * self.block_tokens
        return LayerCache(
            keys, self._side(typed, count, stride, behind, shape.kv_heads, shape.value_dim)
        )

    def _side(
        self, typed: torch.Tensor, count: int, stride: int, offset: int, heads: int, dim: int
    ) -> torch.Tensor:
        size = self.block_tokens
        offset += int(typed.storage_offset())
        if self.token_major:
            shape, strides = (count, size, heads, dim), (stride, heads * dim, dim, 1)
            return typed.as_strided(shape, strides, offset).transpose(1, 2)
        return typed.as_strided((count, heads, size, dim), (stride, size * dim, dim, 1), offset)
