"""Numbers of the fetch workspace: what has host memory comes from below, the rest from above."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.runtime.stand_ins import sequence
from tests.runtime.test_kv_cache import SIZE
from tightrun.policies.shape import LayerShape, ModelShape
from tightrun.runtime.kv_cache import KVCache, Rooms, WorkspacePool
from tightrun.runtime.sequence import Kept, Sequence

BLOCKS, STORED = 9, 6


class PoolMachine(RuleBasedStateMachine):
    """Numbers are taken and given back in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = WorkspacePool(BLOCKS, STORED)
        self.taken: set[int] = set()

    @property
    def free(self) -> set[int]:
        return set(range(BLOCKS)) - self.taken

    @precondition(lambda self: self.pool.free_stored)
    @rule()
    def take_stored(self) -> None:
        lowest = min(self.free)
        assert self.pool.take_stored() == lowest < STORED
        self.taken.add(lowest)

    @precondition(lambda self: self.pool.free)
    @rule()
    def take_unstored(self) -> None:
        highest = max(self.free)
        assert self.pool.take_unstored() == highest
        self.taken.add(highest)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(sorted(self.taken)))
        self.pool.give(block)
        self.taken.remove(block)

    @invariant()
    def what_is_free_is_counted(self) -> None:
        assert self.pool.free == len(self.free)
        assert self.pool.free_stored == len([x for x in self.free if x < STORED])


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=40, stateful_step_count=60, deadline=None, derandomize=True
)


def test_a_number_without_host_memory_is_never_given_as_stored() -> None:
    pool = WorkspacePool(3, 1)
    pool.take_stored()
    with pytest.raises(AssertionError, match="stored workspace block"):
        pool.take_stored()


def test_more_numbers_than_there_are_are_never_given() -> None:
    pool = WorkspacePool(1, 1)
    pool.take_unstored()
    with pytest.raises(AssertionError, match="none is free"):
        pool.take_unstored()


def test_a_number_given_back_twice_is_noticed() -> None:
    pool = WorkspacePool(2, 2)
    block = pool.take_stored()
    pool.give(block)
    with pytest.raises(AssertionError, match="released twice"):
        pool.give(block)


def offloading_cache(
    resident: int = 2, workspace: int = 8, stored: int = 8, activations: int = 4, lanes: int = 1
) -> KVCache:
    """A cache of two layers with workspaces; every block holds SIZE tokens."""
    layer = LayerShape(1, 2, 3, 1, 0, 0)
    shape = ModelShape((layer, layer), 0, 0, 0, 0, 0, 4, 0, 64)
    return KVCache(
        shape,
        resident,
        SIZE,
        6,
        64,
        torch.float32,
        torch.device("cpu"),
        rooms=Rooms(lanes, workspace, stored, activations),
    )


def away(cache: KVCache, tokens: int, kept: Kept | None = None, lane: int = 0) -> Sequence:
    """A sequence off the device that holds `tokens` tokens in those forms."""
    one = sequence([0] * tokens)
    cache.open(one, lane=lane, offloaded=True)
    one.kept = kept or Kept()
    cache.grow(one, tokens)
    one.computed = tokens
    return one


def test_blocks_kept_in_host_memory_lie_together_below_the_others() -> None:
    cache = offloading_cache()
    one = away(cache, 5 * SIZE, Kept(2, 2))
    numbers = [block - cache.resident for block in one.blocks]
    assert numbers == [7, 6, 0, 1, 2]
    assert cache.tables[one.place, :5].tolist() == one.blocks


def test_a_dropped_host_copy_is_free_for_another_sequence() -> None:
    cache = offloading_cache(workspace=12, stored=6)
    one = away(cache, 6 * SIZE)
    other = sequence([0] * 4)
    cache.open(other, offloaded=True)
    assert not cache.can_grow(other, 4)
    cache.keep(one, Kept(2, 2))
    assert cache.can_grow(other, 4)
    assert cache.tables[one.place, :6].tolist() == one.blocks


def test_blocks_become_stored_only_where_there_is_host_memory() -> None:
    cache = offloading_cache(workspace=8, stored=3)
    one = away(cache, 4 * SIZE, Kept(2, 2))
    assert cache.can_keep(one, Kept(1, 1))
    assert not cache.can_keep(one, Kept())
    cache.keep(one, Kept(1, 1))
    stored = [block - cache.resident for block in one.blocks[1:]]
    assert sorted(stored) == [0, 1, 2]


def test_activations_take_blocks_of_their_own() -> None:
    cache = offloading_cache(activations=3)
    one = away(cache, 4 * SIZE)
    assert not cache.can_keep(one, Kept(0, 4))
    assert cache.can_keep(one, Kept(1, 4))
    cache.keep(one, Kept(1, 4))
    assert sorted(one.states) == [1, 2, 3]
    cache.keep(one, Kept(1, 2))
    assert sorted(one.states) == [1]
    assert cache.states[0].free == 2


def test_a_sequence_grows_only_where_its_form_has_room() -> None:
    cache = offloading_cache(activations=2)
    one = away(cache, 2 * SIZE, Kept(0, 1 << 30))
    assert not cache.can_grow(one, 3 * SIZE)
    assert cache.can_grow(one, 2 * SIZE)


def test_what_is_shared_with_a_resident_sequence_is_never_kept_twice() -> None:
    cache = offloading_cache()
    donor = sequence([0] * 8)
    cache.open(donor)
    cache.grow(donor, 8)
    donor.computed = 8
    one = sequence([0] * 20)
    cache.open(one, offloaded=True)
    cache.adopt(one, donor, 7)
    cache.grow(one, 20)
    assert one.shared == 1
    assert one.computed == SIZE, "the part of a block is not shared"
    assert one.blocks[0] == donor.blocks[0]
    assert cache.lanes[0].free == 8 - 4


def test_lanes_do_not_lend_each_other_blocks() -> None:
    cache = offloading_cache(lanes=2)
    away(cache, 8 * SIZE, lane=0)
    one = away(cache, 8 * SIZE, lane=1)
    assert not cache.can_grow(one, 8 * SIZE + 1)
    assert [pool.free for pool in cache.lanes] == [0, 0]


@pytest.mark.parametrize("kept", [Kept(), Kept(2, 2), Kept(1, 3), Kept(1 << 30, 1 << 30)])
def test_a_closed_sequence_leaves_nothing_behind(kept: Kept) -> None:
    cache = offloading_cache()
    one = away(cache, 5 * SIZE + 1, kept)
    cache.close(one)
    assert cache.lanes[0].free == cache.lanes[0].free_stored == 8
    assert cache.states[0].free == 4
    assert (one.blocks, one.states, one.computed) == ([], {}, 0)


def test_a_workspace_number_means_another_place_in_every_layer_and_buffer() -> None:
    cache = offloading_cache(resident=2, workspace=8)
    size = cache.layout.block_bytes // 4
    for layer in range(2):
        for buffer in range(2):
            number = cache.resident + 3 + cache.shift(layer, buffer)
            cache.layers[layer].keys[number] = 5.0
            floats = cache.workspace(buffer).view(torch.float32).view(-1, size)
            assert (floats[3] == 5.0).sum() == cache.layers[layer].keys[number].numel()
            cache.arena.fill_(0)
