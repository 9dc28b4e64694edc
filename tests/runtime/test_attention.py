"""Attention over the paged cache, held against attention written out plainly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.stand_ins import sequence
from tightrun.policies.shape import LayerShape, ModelShape
from tightrun.runtime import attention as module
from tightrun.runtime.attention import AttentionSpec, TorchAttention
from tightrun.runtime.batch import Batch, Segment, pack
from tightrun.runtime.kv_cache import KVCache

SIZE, LONGEST = 8, 600
PLAIN = AttentionSpec(scaling=0.3)


@dataclass(frozen=True)
class Heads:
    q: int = 4
    kv: int = 2
    key: int = 16
    value: int = 16


def naive(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, context: int, spec: AttentionSpec
) -> torch.Tensor:
    """One sequence, one query row and head at a time: `[tokens, q_heads, value_dim]`."""
    heads, tokens, _ = query.shape
    out = torch.zeros(tokens, heads, values.shape[-1])
    for head in range(heads):
        kv = head * keys.shape[0] // heads
        for row in range(tokens):
            last = context + row
            first = 0 if spec.window is None else max(0, last - spec.window + 1)
            scores = keys[kv, first : last + 1] @ query[head, row] * spec.scaling
            if spec.softcap is not None:
                scores = torch.tanh(scores / spec.softcap) * spec.softcap
            weights = scores.exp()
            total = weights.sum()
            if spec.sinks is not None:
                total = total + spec.sinks[head].exp()
            out[row, head] = weights @ values[kv, first : last + 1] / total
    return out


def assert_attends(
    lengths: list[tuple[int, int]],
    spec: AttentionSpec = PLAIN,
    heads: Heads | None = None,
    *,
    padded: bool = False,
    token_major: bool = False,
) -> None:
    """Sequences of (context, chunk) tokens: the context first, then the chunks in one batch."""
    h = heads or Heads()
    shape = ModelShape((LayerShape(h.q, h.kv, h.key, h.value, 0, 0),), 0, 0, 0, 0, 0, 4, 0, LONGEST)
    blocks = sum(-(-(c + n) // SIZE) for c, n in lengths) + 3
    cache = KVCache(
        shape, blocks, SIZE, len(lengths), LONGEST, torch.float32, torch.device("cpu"),
        token_major=token_major, poison=True,
    )  # fmt: skip
    sequences = [sequence([0] * (c + n)) for c, n in lengths]
    for one in sequences:
        cache.open(one)
    # Blocks are taken in turn, so that no sequence has neighbouring ones.
    for tokens in range(SIZE, LONGEST, SIZE):
        for one in sequences:
            cache.grow(one, min(tokens, len(one.tokens)))
    generator = torch.Generator().manual_seed(0)
    kernel = TorchAttention()
    keys = [torch.randn(h.kv, c + n, h.key, generator=generator) for c, n in lengths]
    values = [torch.randn(h.kv, c + n, h.value, generator=generator) for c, n in lengths]

    def run(segments: list[Segment]) -> tuple[Batch, torch.Tensor, torch.Tensor]:
        batch = pack(segments, cache, torch.device("cpu"), pad_position=500 if padded else None)
        query = torch.randn(h.q, batch.tokens, h.key, generator=generator)
        at = [sequences.index(s.sequence) for s in segments]
        spans = [slice(s.sequence.computed, s.sequence.computed + s.tokens) for s in segments]
        key = torch.cat([keys[i][:, span] for i, span in zip(at, spans, strict=True)], 1)
        value = torch.cat([values[i][:, span] for i, span in zip(at, spans, strict=True)], 1)
        if padded:
            key, value = (torch.cat([x, x.new_full((h.kv, 1, x.shape[2]), 9.0)], 1)
                          for x in (key, value))  # fmt: skip
        kernel.store(cache.layers[0], key, value, batch)
        return batch, query, kernel.attend(cache.layers[0], query, batch, spec)

    for part in (0, 1):
        segments = [
            Segment(one, length[part])
            for one, length in zip(sequences, lengths, strict=True)
            if length[part]
        ]
        if not segments:
            continue
        batch, query, out = run(segments)
        assert out.shape == (batch.tokens, h.q, h.value)
        row = 0
        for segment in segments:
            i = sequences.index(segment.sequence)
            rows = slice(row, row + segment.tokens)
            expected = naive(query[:, rows], keys[i], values[i], segment.sequence.computed, spec)
            torch.testing.assert_close(out[rows], expected, rtol=1e-4, atol=1e-5)
            row += segment.tokens
        for segment in segments:
            segment.sequence.computed += segment.tokens


RAGGED = [(0, 5), (13, 1), (7, 9), (0, 1), (24, 8), (40, 1), (3, 20)]


@pytest.mark.parametrize(
    "spec",
    [
        PLAIN,
        replace(PLAIN, window=6),
        replace(PLAIN, window=1),
        replace(PLAIN, softcap=2.0),
        replace(PLAIN, sinks=torch.tensor([0.5, -1.0, 3.0, 0.0])),
        replace(PLAIN, window=6, softcap=2.0, sinks=torch.ones(4)),
    ],
    ids=["plain", "window", "window 1", "softcap", "sinks", "all"],
)
def test_a_ragged_batch_of_chunks_and_single_tokens(spec: AttentionSpec) -> None:
    assert_attends(RAGGED, spec)


@pytest.mark.parametrize(
    "heads",
    [Heads(4, 4), Heads(4, 1), Heads(6, 2), Heads(4, 2, 24, 16), Heads(4, 2, 8, 32)],
    ids=str,
)
def test_heads_in_groups_and_values_of_another_width(heads: Heads) -> None:
    assert_attends(RAGGED, heads=heads)
    assert_attends(RAGGED, replace(PLAIN, window=4), heads)


def test_a_token_major_cache_gives_the_same() -> None:
    assert_attends(RAGGED, token_major=True)


def test_a_padding_row_is_stored_nowhere_and_disturbs_nobody() -> None:
    assert_attends(RAGGED, padded=True)


def test_more_single_tokens_than_a_group_holds() -> None:
    assert_attends([(3 * i % 50, 1) for i in range(2 * module.DECODE_GROUP + 5)])


def test_a_chunk_of_several_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUERY_SLICE", 16)
    for spec in (PLAIN, replace(PLAIN, window=5), replace(PLAIN, softcap=3.0)):
        assert_attends([(0, 50), (9, 33), (0, 16)], spec)


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(
        st.tuples(st.integers(0, 40), st.one_of(st.just(1), st.integers(1, 30))),
        min_size=1,
        max_size=6,
    ),
    window=st.one_of(st.none(), st.integers(1, 50)),
    softcap=st.one_of(st.none(), st.floats(0.5, 10)),
    sinks=st.booleans(),
    heads=st.sampled_from([Heads(), Heads(4, 4, 8, 8), Heads(4, 1, 16, 8)]),
)
def test_any_batch(
    lengths: list[tuple[int, int]],
    window: int | None,
    softcap: float | None,
    sinks: bool,
    heads: Heads,
) -> None:
    spec = AttentionSpec(0.3, window, softcap, torch.linspace(-1, 1, 4) if sinks else None)
    assert_attends(lengths, spec, heads)
