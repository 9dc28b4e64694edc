"""Where every sequence's context lives: blocks of the device KV cache, and who holds them."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import torch

from tightrun.policies.shape import ModelShape
from tightrun.runtime.device import Device
from tightrun.runtime.kv_layout import KVLayout, LayerCache
from tightrun.runtime.sequence import Kept, Sequence


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


class WorkspacePool:
    """The block numbers of a lane's fetch workspace, the first `stored` of them with host memory.

    What is fetched from the host takes the lowest numbers, what is computed again the highest, so
    that fetched blocks lie together and a dropped host copy is free for another sequence.
    """

    def __init__(self, blocks: int, stored: int) -> None:
        assert stored <= blocks
        self.blocks, self.stored = blocks, stored
        self._is_free = [True] * blocks
        self._low: list[int] = []
        self._high: list[int] = []
        self._sort()
        self.free = blocks
        self.free_stored = stored

    def take_stored(self) -> int:
        """The lowest free number, which has host memory. The caller has checked that there is."""
        return self._take(self._low, 1, self.stored)

    def take_unstored(self) -> int:
        """The highest free number."""
        return self._take(self._high, -1, self.blocks)

    def give(self, block: int) -> None:
        """Take a number back."""
        assert not self._is_free[block], "a workspace block was released twice"
        self._is_free[block] = True
        self.free += 1
        self.free_stored += block < self.stored
        heapq.heappush(self._low, block)
        heapq.heappush(self._high, -block)
        if max(len(self._low), len(self._high)) > 4 * self.blocks:
            self._sort()

    def _sort(self) -> None:
        self._low = [x for x in range(self.blocks) if self._is_free[x]]
        self._high = [-x for x in reversed(self._low)]

    def _take(self, heap: list[int], sign: int, end: int) -> int:
        while True:
            assert heap, "asked for a workspace block where none is free"
            block = sign * heapq.heappop(heap)
            # A number is in both heaps, and stale in one once it was taken from the other.
            if self._is_free[block]:
                break
        assert block < end, "asked for a stored workspace block where none is free"
        self._is_free[block] = False
        self.free -= 1
        self.free_stored -= block < self.stored
        return block


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a cache has beside its resident blocks: `lanes` workspaces of `workspace` blocks each,
    the first `stored` of them with host memory, and `activations` blocks of stored states. On the
    device there are `buffers` of each, which all lanes and layers take turns in."""

    lanes: int = 1
    workspace: int = 0
    stored: int = 0
    activations: int = 0
    buffers: int = 2


class KVCache:
    """The device KV of all layers, and the block table of every running sequence.

    `tables[place]` lists the blocks of the sequence at that place, in order of its tokens: numbers
    below `resident` are blocks of the device, the others blocks of the lane's workspace, of which
    there are some in `arena` behind the resident ones. `poison` fills blocks that nobody holds
    with NaN, so that a test sees any use of what is not there yet or not any more.
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
        rooms: Rooms | None = None,
        memory: Device | None = None,
    ) -> None:
        self.block_tokens = block_tokens
        self.pool = BlockPool(blocks)
        self.resident = blocks
        self.rooms = rooms or Rooms()
        self.lanes = [
            WorkspacePool(self.rooms.workspace, self.rooms.stored) for _ in range(self.rooms.lanes)
        ]
        self.states = [
            WorkspacePool(self.rooms.activations, self.rooms.activations)
            for _ in range(self.rooms.lanes)
        ]
        self.tables = np.zeros((places, -(-longest // block_tokens)), dtype=np.int32)
        self._places = list(range(places - 1, -1, -1))
        self._poison = poison
        self.layout = KVLayout(shape, block_tokens, dtype, token_major)
        size = self.layout.block_bytes
        count = len(shape.layers) * blocks + self.rooms.buffers * self.rooms.workspace
        self.arena = (
            memory.empty(count * size, "kv")
            if memory is not None
            else torch.empty(count * size, dtype=torch.uint8, device=device)
        )
        # A kernel may multiply what it masks by zero, and zero times NaN is NaN.
        self.arena.zero_()
        # Each layer's view begins at its own resident blocks, so that resident numbers are the
        # same in every layer; with workspaces it goes on to the arena's end, where they are.
        end = count if self.rooms.workspace else 0
        self.layers: list[LayerCache] = [
            self.layout.view(
                self.arena[at * blocks * size : max(end, (at + 1) * blocks) * size], at
            )
            for at in range(len(shape.layers))
        ]
        if poison:
            self._spoil(list(range(blocks)))

    def let_go(self) -> None:
        """Free the arena; nothing can be stored any more."""
        self.layers.clear()
        self.arena = self.arena.new_empty(0)

    @property
    def free_places(self) -> int:
        return len(self._places)

    def workspace(self, buffer: int) -> torch.Tensor:
        """The bytes of one fetch workspace."""
        size, count = self.layout.block_bytes, self.rooms.workspace
        first = len(self.layers) * self.resident + buffer * count
        return self.arena[first * size : (first + count) * size]

    def shift(self, layer: int, buffer: int) -> int:
        """What to add to a workspace number of a table so that it points into that buffer."""
        return (len(self.layers) - 1 - layer) * self.resident + buffer * self.rooms.workspace

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)

    def can_grow(self, sequence: Sequence, tokens: int) -> bool:
        """Whether the sequence's blocks can be made to hold `tokens` tokens."""
        have, want = len(sequence.blocks), self.blocks_for(tokens)
        if not sequence.offloaded:
            return want - have <= self.pool.free
        pool = self.lanes[sequence.lane]
        stored = max(0, want - max(have, sequence.kept.stored_from))
        states = len([p for p in range(have, want) if sequence.kept.is_states(p)])
        return (
            want - have <= pool.free
            and stored <= pool.free_stored
            and states <= self.states[sequence.lane].free
        )

    def open(self, sequence: Sequence, *, lane: int = 0, offloaded: bool = False) -> None:
        """Give the sequence a place in the block tables."""
        assert sequence.place < 0
        assert not sequence.blocks
        sequence.place = self._places.pop()
        sequence.computed = 0
        sequence.lane, sequence.offloaded = lane, offloaded
        sequence.shared, sequence.states = 0, {}
        sequence.kept = sequence.settled = Kept()

    def grow(self, sequence: Sequence, tokens: int) -> None:
        """Make the sequence's blocks hold `tokens` tokens."""
        have, want = len(sequence.blocks), self.blocks_for(tokens)
        if want <= have:
            return
        if not sequence.offloaded:
            self._append(sequence, self.pool.allocate(want - have))
            return
        for position in range(have, want):
            self._append(sequence, [self.resident + self._take(sequence, position)])
            if sequence.kept.is_states(position):
                sequence.states[position] = self.states[sequence.lane].take_stored()

    def keep(self, sequence: Sequence, kept: Kept) -> None:
        """Change which form the sequence's blocks are to have from the running pass on.

        Blocks whose host copy is dropped move to a number without host memory and the reverse;
        what the workspace holds does not outlive a layer, so nothing is copied.
        """
        pool, states = self.lanes[sequence.lane], self.states[sequence.lane]
        before, sequence.kept = sequence.kept, kept
        for position in range(sequence.shared, len(sequence.blocks)):
            if before.is_stored(position) != kept.is_stored(position):
                pool.give(sequence.blocks[position] - self.resident)
                block = self.resident + self._take(sequence, position)
                sequence.blocks[position] = block
                self.tables[sequence.place, position] = block
            if before.is_states(position) and not kept.is_states(position):
                states.give(sequence.states.pop(position))
            elif kept.is_states(position) and not before.is_states(position):
                sequence.states[position] = states.take_stored()

    def can_keep(self, sequence: Sequence, kept: Kept) -> bool:
        """Whether there is host memory for that change."""
        changed = range(sequence.shared, len(sequence.blocks))
        stored = sum(kept.is_stored(p) - sequence.kept.is_stored(p) for p in changed)
        states = sum(kept.is_states(p) - sequence.kept.is_states(p) for p in changed)
        lane = sequence.lane
        # A block gives its number back before it takes another, so one pool serves both.
        return stored <= self.lanes[lane].free_stored and states <= self.states[lane].free

    def adopt(self, sequence: Sequence, donor: Sequence, tokens: int) -> None:
        """Let a freshly opened sequence begin with the first `tokens` tokens of a donor's context.

        The donor is resident. Whole blocks are held together with it; the part of the last one is
        copied, and left out for a sequence that is not resident itself.
        """
        assert not sequence.blocks
        assert not donor.offloaded
        assert tokens <= donor.computed
        whole = tokens // self.block_tokens
        shared = donor.blocks[:whole]
        self.pool.share(shared)
        self._append(sequence, shared)
        if sequence.offloaded:
            sequence.shared = whole
            sequence.kept = sequence.settled = Kept(whole, whole)
            sequence.computed = whole * self.block_tokens
            return
        if tokens % self.block_tokens:
            [own] = self.pool.allocate(1)
            for layer in self.layers:
                layer.keys[own].copy_(layer.keys[donor.blocks[whole]])
                layer.values[own].copy_(layer.values[donor.blocks[whole]])
            self._append(sequence, [own])
        sequence.computed = tokens

    def close(self, sequence: Sequence) -> None:
        """Take back the sequence's blocks and its place."""
        mine = len(sequence.blocks) if not sequence.offloaded else sequence.shared
        freed = self.pool.release(sequence.blocks[:mine])
        if self._poison and freed:
            self._spoil(freed)
        for block in sequence.blocks[mine:]:
            self.lanes[sequence.lane].give(block - self.resident)
        for block in sequence.states.values():
            self.states[sequence.lane].give(block)
        sequence.blocks, sequence.states = [], {}
        sequence.computed, sequence.shared, sequence.offloaded = 0, 0, False
        if sequence.place >= 0:
            self._places.append(sequence.place)
            sequence.place = -1

    def _take(self, sequence: Sequence, position: int) -> int:
        pool = self.lanes[sequence.lane]
        return pool.take_stored() if sequence.kept.is_stored(position) else pool.take_unstored()

    def _append(self, sequence: Sequence, blocks: list[int]) -> None:
        at = len(sequence.blocks)
        self.tables[sequence.place, at : at + len(blocks)] = blocks
        sequence.blocks.extend(blocks)

    def _spoil(self, blocks: list[int]) -> None:
        for layer in self.layers:
            layer.keys[blocks] = torch.nan
            layer.values[blocks] = torch.nan
