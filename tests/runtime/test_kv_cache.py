"""Blocks have exactly the holders that list them, and hold what was written for them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.runtime.stand_ins import sequence
from tightrun.policies.shape import LayerShape, ModelShape
from tightrun.runtime.kv_cache import BlockPool, KVCache
from tightrun.runtime.sequence import Sequence

BLOCKS, SIZE, PLACES, LONGEST = 12, 4, 5, 40


def cache_of(blocks: int = BLOCKS, places: int = PLACES, *, token_major: bool = False) -> KVCache:
    """A poisoned cache of two layers, keys wider than values."""
    layer = LayerShape(1, 2, 3, 1, 0, 0)
    shape = ModelShape((layer, layer), 0, 0, 0, 0, 0, 4, 0, LONGEST)
    return KVCache(
        shape,
        blocks,
        SIZE,
        places,
        LONGEST,
        torch.float32,
        torch.device("cpu"),
        token_major=token_major,
        poison=True,
    )


def opened(cache: KVCache, tokens: int) -> Sequence:
    """A sequence with blocks for `tokens` tokens, all of them computed."""
    one = sequence([0] * tokens)
    cache.open(one)
    cache.grow(one, tokens)
    one.computed = tokens
    return one


class CacheMachine(RuleBasedStateMachine):
    """Sequences start, grow, share and end in any order; each position holds its own number."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = cache_of()
        self.running: list[Sequence] = []
        self.content: dict[Sequence, list[float]] = {}
        self.next_value = 0.0

    @precondition(lambda self: self.cache.free_places > 0)
    @rule()
    def start(self) -> None:
        one = sequence([])
        self.cache.open(one)
        self.running.append(one)
        self.content[one] = []

    @precondition(lambda self: self.running)
    @rule(data=st.data(), more=st.integers(1, 9))
    def write(self, data: st.DataObject, more: int) -> None:
        one = data.draw(st.sampled_from(self.running))
        total = one.computed + more
        if total > LONGEST or not self.cache.can_grow(one, total):
            return
        self.cache.grow(one, total)
        for position in range(one.computed, total):
            self.next_value += 1
            block, offset = one.blocks[position // SIZE], position % SIZE
            for layer in self.cache.layers:
                layer.keys[block, :, offset] = self.next_value
                layer.values[block, :, offset] = -self.next_value
            self.content[one].append(self.next_value)
        one.computed = total

    @precondition(lambda self: self.running and self.cache.free_places > 0)
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        donor = data.draw(st.sampled_from(self.running))
        tokens = data.draw(st.integers(0, donor.computed))
        if tokens % SIZE and self.cache.pool.free == 0:
            return
        one = sequence([])
        self.cache.open(one)
        self.cache.adopt(one, donor, tokens)
        self.running.append(one)
        self.content[one] = self.content[donor][:tokens]

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.running))
        self.running.remove(one)
        self.cache.close(one)
        assert (one.blocks, one.computed, one.place) == ([], 0, -1)
        del self.content[one]

    @invariant()
    def no_block_is_lost_or_handed_out_twice(self) -> None:
        holders = Counter(block for one in self.running for block in one.blocks)
        assert self.cache.pool.used == len(holders)
        assert self.cache.pool.free == BLOCKS - len(holders)

    @invariant()
    def places_are_given_to_one_sequence_each(self) -> None:
        places = [one.place for one in self.running]
        assert len(set(places)) == len(places)
        assert self.cache.free_places == PLACES - len(places)

    @invariant()
    def tables_list_the_blocks(self) -> None:
        for one in self.running:
            listed = self.cache.tables[one.place, : len(one.blocks)].tolist()
            assert listed == one.blocks

    @invariant()
    def everybody_still_has_what_was_written_for_him(self) -> None:
        for one in self.running:
            for layer in self.cache.layers:
                for position, value in enumerate(self.content[one]):
                    block, offset = one.blocks[position // SIZE], position % SIZE
                    assert (layer.keys[block, :, offset] == value).all()
                    assert (layer.values[block, :, offset] == -value).all()

    @invariant()
    def what_nobody_holds_is_poisoned(self) -> None:
        held = {block for one in self.running for block in one.blocks}
        free = [block for block in range(BLOCKS) if block not in held]
        for layer in self.cache.layers:
            assert layer.keys[free].isnan().all()
            assert layer.values[free].isnan().all()


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_whole_blocks_are_shared_and_the_part_of_the_last_is_copied() -> None:
    cache = cache_of()
    donor = opened(cache, 11)
    one = sequence([0] * 12)
    cache.open(one)
    cache.adopt(one, donor, 10)
    assert one.blocks[:2] == donor.blocks[:2]
    assert one.blocks[2] not in donor.blocks
    assert (one.computed, cache.pool.used) == (10, 4)


def test_a_share_that_ends_with_a_block_copies_nothing() -> None:
    cache = cache_of()
    donor = opened(cache, 11)
    one = sequence([0] * 12)
    cache.open(one)
    cache.adopt(one, donor, 8)
    assert one.blocks == donor.blocks[:2]
    assert cache.pool.used == 3


def test_a_shared_block_outlives_its_first_holder() -> None:
    cache = cache_of()
    donor = opened(cache, 8)
    one = sequence([0] * 9)
    cache.open(one)
    cache.adopt(one, donor, 8)
    blocks = list(donor.blocks)
    for layer in cache.layers:
        layer.keys[blocks] = 5.0
    cache.close(donor)
    assert cache.pool.used == 2
    assert (cache.layers[1].keys[blocks] == 5.0).all()


@pytest.mark.parametrize("token_major", [False, True])
def test_the_layout_in_memory_changes_no_index(token_major: bool) -> None:
    cache = cache_of(token_major=token_major)
    assert cache.layers[0].keys.shape == (BLOCKS, 2, SIZE, 3)
    assert cache.layers[0].values.shape == (BLOCKS, 2, SIZE, 1)
    assert cache.layers[0].block_tokens == SIZE
    assert cache.layers[0].keys[0].is_contiguous() is not token_major


def test_growing_takes_only_the_blocks_that_are_missing() -> None:
    cache = cache_of()
    one = opened(cache, 5)
    assert len(one.blocks) == 2
    cache.grow(one, 8)
    assert len(one.blocks) == 2
    cache.grow(one, 9)
    assert len(one.blocks) == 3


def test_whether_a_sequence_can_grow_counts_what_it_has() -> None:
    cache = cache_of(blocks=3)
    one = opened(cache, 5)
    assert cache.can_grow(one, 12)
    assert not cache.can_grow(one, 13)


def test_more_blocks_than_are_free_are_never_promised() -> None:
    with pytest.raises(AssertionError, match="more KV blocks than are free"):
        BlockPool(2).allocate(3)


def test_releasing_twice_is_noticed() -> None:
    pool = BlockPool(2)
    blocks = pool.allocate(1)
    pool.release(blocks)
    with pytest.raises(AssertionError, match="released twice"):
        pool.release(blocks)


def test_a_free_block_cannot_be_shared() -> None:
    with pytest.raises(AssertionError, match="cannot be shared"):
        BlockPool(2).share([0])
