"""Packed rows: whose they are, where they are stored, which of them are asked for logits."""

from __future__ import annotations

import torch

from tests.runtime.stand_ins import sequence
from tests.runtime.test_kv_cache import SIZE, cache_of
from tightrun.runtime.batch import Batch, Segment, pack
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.sequence import Sequence

CPU = torch.device("cpu")


def started(cache: KVCache, tokens: list[int], computed: int) -> Sequence:
    one = sequence(tokens)
    cache.open(one)
    cache.grow(one, len(tokens))
    one.computed = computed
    return one


def example() -> tuple[KVCache, list[Sequence], Batch]:
    """A decoding sequence, the middle of a prompt, the end of a prompt."""
    cache = cache_of()
    sequences = [
        started(cache, [10, 11, 12, 13, 14, 15], 5),
        started(cache, list(range(20, 32)), 3),
        started(cache, [40, 41, 42], 0),
    ]
    segments = [Segment(s, n) for s, n in zip(sequences, (1, 4, 3), strict=True)]
    return cache, sequences, pack(segments, cache, CPU)


def test_rows_are_the_next_tokens_of_each_at_their_positions() -> None:
    _, _, batch = example()
    assert batch.input_ids.tolist() == [[15, 23, 24, 25, 26, 40, 41, 42]]
    assert batch.positions.tolist() == [[5, 3, 4, 5, 6, 0, 1, 2]]
    assert batch.tokens == 8


def test_segments_say_where_their_rows_and_their_contexts_are() -> None:
    _, _, batch = example()
    assert batch.query_start.tolist() == [0, 1, 5]
    assert batch.query_len.tolist() == [1, 4, 3]
    assert batch.context_len.tolist() == [5, 3, 0]


def test_every_row_has_its_place_in_the_cache() -> None:
    _, sequences, batch = example()
    expected = []
    for one, tokens in zip(sequences, (1, 4, 3), strict=True):
        for position in range(one.computed, one.computed + tokens):
            expected.append(one.blocks[position // SIZE] * SIZE + position % SIZE)
    assert batch.slots.tolist() == expected
    assert len(set(expected)) == len(expected)


def test_tables_are_as_wide_as_the_longest_context_of_the_batch() -> None:
    _, sequences, batch = example()
    assert batch.block_table.shape == (3, 2)
    assert batch.block_table[0].tolist() == sequences[0].blocks
    assert batch.block_table[1].tolist() == sequences[1].blocks[:2]


def test_logits_are_asked_for_where_what_is_known_ends() -> None:
    _, sequences, batch = example()
    assert batch.logit_rows.tolist() == [0, 7]
    assert batch.logit_sequences == [sequences[0], sequences[2]]


def test_a_padding_row_has_a_position_and_no_place() -> None:
    cache = cache_of()
    one = started(cache, [1, 2], 0)
    batch = pack([Segment(one, 2)], cache, CPU, pad_position=33)
    assert batch.positions.tolist() == [[0, 1, 33]]
    assert batch.slots.tolist()[-1] == -1
    assert (batch.tokens, batch.padding) == (3, 1)
    assert batch.logit_rows.tolist() == [1]


def test_work_counts_what_every_row_attends_to() -> None:
    _, _, batch = example()
    work = batch.work()
    assert (work.tokens, work.logit_rows) == (8, 2)
    assert work.attended == 6 + (4 + 5 + 6 + 7) + (1 + 2 + 3)
    assert work.context_tokens == 6 + 7 + 3
