"""Where every sequence's context lives: blocks of the device KV cache, and who holds them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tightrun.policies.shape import ModelShape
from tightrun.runtime.sequence import Sequence


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


class BlockPool:
    """Hands out block numbers and counts their holders; a block is free when nobody holds it."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._free = list(range(blocks - 1, -1, -1))
        self._holders = [0] * blocks

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def used(self) -> int:
        return self.blocks - len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Take `count` free blocks. The caller has checked that there are so many."""
        assert count <= len(self._free), "asked for more KV blocks than are free"
        taken = [self._free.pop() for _ in range(count)]
        for block in taken:
            self._holders[block] = 1
        return taken

    def share(self, blocks: list[int]) -> None:
        """Hold blocks that somebody holds already."""
        for block in blocks:
            assert self._holders[block] > 0, "a free block cannot be shared"
            self._holders[block] += 1

    def release(self, blocks: list[int]) -> list[int]:
        """Let go of blocks; returns those that became free."""
        freed = []
        for block in blocks:
            self._holders[block] -= 1
            assert self._holders[block] >= 0, "a KV block was released twice"
            if self._holders[block] == 0:
                freed.append(block)
        self._free.extend(freed)
        return freed


class KVCache:
    """The device KV of all layers, and the block table of every running sequence.

    `tables[place]` lists the blocks of the sequence at that place, in order of its tokens.
    `poison` fills blocks that nobody holds with NaN, so that a test sees any use of what is not
    there yet or not any more.
    """

    def __init__(
        self,
        shape: ModelShape,
        blocks: int,
        block_tokens: int,
        places: int,
        longest: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        token_major: bool = False,
        poison: bool = False,
    ) -> None:
        self.block_tokens = block_tokens
        self.pool = BlockPool(blocks)
        self.tables = np.zeros((places, -(-longest // block_tokens)), dtype=np.int32)
        self._places = list(range(places - 1, -1, -1))
        self._poison = poison

        def side(heads: int, dim: int) -> torch.Tensor:
            if token_major:
                empty = torch.empty((blocks, block_tokens, heads, dim), dtype=dtype, device=device)
                return empty.transpose(1, 2)
            return torch.empty((blocks, heads, block_tokens, dim), dtype=dtype, device=device)

        self.layers = [
            LayerCache(side(x.kv_heads, x.key_dim), side(x.kv_heads, x.value_dim))
            for x in shape.layers
        ]
        if poison:
            self._spoil(list(range(blocks)))

    @property
    def free_places(self) -> int:
        return len(self._places)

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)

    def can_grow(self, sequence: Sequence, tokens: int) -> bool:
        """Whether the sequence's blocks can be made to hold `tokens` tokens."""
        return self.blocks_for(tokens) - len(sequence.blocks) <= self.pool.free

    def open(self, sequence: Sequence) -> None:
        """Give the sequence a place in the block tables."""
        assert sequence.place < 0
        assert not sequence.blocks
        sequence.place = self._places.pop()
        sequence.computed = 0

    def grow(self, sequence: Sequence, tokens: int) -> None:
        """Make the sequence's blocks hold `tokens` tokens."""
        missing = self.blocks_for(tokens) - len(sequence.blocks)
        if missing > 0:
            self._append(sequence, self.pool.allocate(missing))

    def adopt(self, sequence: Sequence, donor: Sequence, tokens: int) -> None:
        """Let a freshly opened sequence begin with the first `tokens` tokens of a donor's context.

        Whole blocks are held together with the donor; the part of the last one is copied.
        """
        assert not sequence.blocks
        assert tokens <= donor.computed
        whole = tokens // self.block_tokens
        shared = donor.blocks[:whole]
        self.pool.share(shared)
        self._append(sequence, shared)
        if tokens % self.block_tokens:
            [own] = self.pool.allocate(1)
            for layer in self.layers:
                layer.keys[own].copy_(layer.keys[donor.blocks[whole]])
                layer.values[own].copy_(layer.values[donor.blocks[whole]])
            self._append(sequence, [own])
        sequence.computed = tokens

    def close(self, sequence: Sequence) -> None:
        """Take back the sequence's blocks and its place."""
        freed = self.pool.release(sequence.blocks)
        if self._poison and freed:
            self._spoil(freed)
        sequence.blocks = []
        sequence.computed = 0
        if sequence.place >= 0:
            self._places.append(sequence.place)
            sequence.place = -1

    def _append(self, sequence: Sequence, blocks: list[int]) -> None:
        at = len(sequence.blocks)
        self.tables[sequence.place, at : at + len(blocks)] = blocks
        sequence.blocks.extend(blocks)

    def _spoil(self, blocks: list[int]) -> None:
        for layer in self.layers:
            layer.keys[blocks] = torch.nan
            layer.values[blocks] = torch.nan
