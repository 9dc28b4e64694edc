"""A plan never promises more than there is, and passes stay wide where they can."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrun.policies.hardware import Budget
from tightrun.policies.plan import (
    BLOCK_TOKENS,
    LEAST_CONTEXT,
    MOST_SEQUENCES,
    PREFILL_TOKENS,
    DoesNotFitError,
    Plan,
    Workload,
    logits_bytes,
    plan_resident,
    workspace_bytes,
)
from tightrun.policies.shape import LayerShape, ModelShape

MIB, GIB = 2**20, 2**30


def model(
    *,
    layers: int = 4,
    hidden: int = 256,
    kv_heads: int = 2,
    vocab: int = 1000,
    weight_bytes: int = 10 * MIB,
    context: int = 4096,
) -> ModelShape:
    layer = LayerShape(4, kv_heads, 64, 64, 10**6, weight_bytes // layers)
    return ModelShape(
        (layer,) * layers,
        hidden,
        vocab,
        10**6,
        weight_bytes,
        hidden * vocab,
        2,
        4 * hidden,
        context,
    )


def plan(shape: ModelShape, nbytes: int, workload: Workload | None = None, **wishes: Any) -> Plan:
    device = wishes.pop("device", "cpu")
    budget = Budget(nbytes, "limits.cpu_memory")
    return plan_resident(shape, budget, device, workload or Workload(), **wishes)


# An 8 B model: 16 GB of weights, 128 KiB of KV per token, a context of 131,072 tokens.
LARGE = ModelShape(
    (LayerShape(32, 8, 128, 128, 218 * 10**6, 436 * 10**6),) * 32,
    4096, 128_256, 8_030 * 10**6, 16_060 * 10**6, 525 * 10**6, 2, 14_336, 131_072,
)  # fmt: skip

shapes = st.builds(
    model,
    layers=st.integers(1, 8),
    hidden=st.sampled_from([64, 1024, 4096]),
    kv_heads=st.integers(1, 8),
    vocab=st.sampled_from([256, 32_000, 150_000]),
    weight_bytes=st.integers(1, 2 * GIB),
    context=st.integers(1, 200_000),
)
workloads = st.builds(
    Workload,
    rows=st.one_of(st.none(), st.integers(0, 10**6)),
    samples=st.integers(1, 8),
    longest_sequence=st.one_of(st.none(), st.integers(1, 10**6)),
)


def least_bytes(shape: ModelShape, workload: Workload, device: str, context: int | None) -> int:
    """What one sequence takes, a token at a time."""
    block_tokens = BLOCK_TOKENS[device.split(":")[0]]
    window = min(context or shape.context, shape.context)
    tokens = min(workload.longest_sequence or window, window, LEAST_CONTEXT)
    kv_bytes = -(-tokens // block_tokens) * block_tokens * shape.kv_bytes_per_token
    passing = workspace_bytes(shape, 1) + logits_bytes(shape, 1)
    return shape.weight_bytes + passing + kv_bytes


@given(
    shape=shapes,
    nbytes=st.integers(1, 8 * GIB),
    workload=workloads,
    device=st.sampled_from(["cpu", "cuda:0"]),
    batch_size=st.one_of(st.none(), st.integers(1, 5000)),
    context=st.one_of(st.none(), st.integers(1, 300_000)),
    beside=st.integers(0, GIB),
)
def test_a_plan_keeps_to_the_budget_or_not_even_one_row_fits(
    shape: ModelShape,
    nbytes: int,
    workload: Workload,
    device: str,
    batch_size: int | None,
    context: int | None,
    beside: int,
) -> None:
    try:
        got = plan(
            shape, nbytes, workload, device=device, batch_size=batch_size, context=context,
            beside=beside,
        )  # fmt: skip
    except DoesNotFitError:
        assert nbytes < least_bytes(shape, workload, device, context) + beside
        return
    assert sum(got.arenas.values()) <= nbytes
    assert got.arenas["weights"] == shape.weight_bytes
    assert got.arenas["beside"] == beside
    assert got.arenas["logits"] == logits_bytes(shape, got.batch_size)
    wide = max(got.prefill_tokens, got.batch_size)
    assert got.arenas["workspace"] == workspace_bytes(shape, wide)
    assert got.arenas["kv"] == got.kv_tokens * shape.kv_bytes_per_token
    kind = device.split(":")[0]
    assert got.block_tokens == BLOCK_TOKENS[kind]
    assert 1 <= got.batch_size <= (batch_size or MOST_SEQUENCES[kind])
    assert 1 <= got.prefill_tokens <= PREFILL_TOKENS[kind]
    assert 1 <= got.context <= min(shape.context, context or shape.context)
    longest = min(got.context, workload.longest_sequence or got.context)
    assert got.kv_tokens >= longest


def test_with_plenty_of_memory_everything_is_as_wide_as_it_gets() -> None:
    got = plan(model(), 64 * GIB)
    assert (got.batch_size, got.prefill_tokens, got.context) == (512, 2048, 4096)
    assert got.kv_tokens == 512 * 4096


def test_a_gpu_takes_wider_passes_and_larger_pages() -> None:
    got = plan(model(), 64 * GIB, device="cuda:0")
    assert (got.batch_size, got.prefill_tokens, got.block_tokens) == (2048, 8192, 256)


def test_no_more_places_than_there_are_samples_of_rows() -> None:
    assert plan(model(), 64 * GIB, Workload(rows=3, samples=4)).batch_size == 12
    assert plan(model(), 64 * GIB, Workload(rows=0)).batch_size == 1


def test_a_batch_size_that_is_asked_for_is_kept() -> None:
    assert plan(model(), 64 * GIB, batch_size=7).batch_size == 7


def test_the_context_may_be_shortened_but_not_lengthened() -> None:
    assert plan(model(), 64 * GIB, context=100).context == 100
    assert plan(model(), 64 * GIB, context=10**6).context == 4096


def test_no_more_kv_is_taken_than_the_longest_rows_need() -> None:
    got = plan(model(), 64 * GIB, Workload(rows=10, longest_sequence=100))
    assert got.kv_tokens == 10 * 128
    assert got.context == 4096


def test_the_reasons_name_the_limit() -> None:
    assert plan(model(), GIB).reasons[0] == "limits.cpu_memory allows 1.0 GiB"


def test_passes_grow_narrower_where_a_known_sequence_would_not_fit_beside_them() -> None:
    shape = model(vocab=150_000)
    workload = Workload(longest_sequence=4096)
    floor = shape.weight_bytes + 4096 * shape.kv_bytes_per_token
    narrow = plan(shape, floor + 20 * MIB, workload)
    assert narrow.context == 4096
    assert narrow.kv_tokens >= 4096
    assert narrow.batch_size < 512
    assert narrow.prefill_tokens < 2048
    wide = plan(shape, floor + GIB, workload)
    assert (wide.batch_size, wide.prefill_tokens) == (512, 2048)


@pytest.mark.parametrize("gib", [17, 18, 20, 24, 30])
def test_a_context_that_is_not_known_to_be_needed_does_not_narrow_the_passes(gib: int) -> None:
    got = plan(LARGE, gib * GIB)
    assert got.batch_size >= 128
    assert got.prefill_tokens >= 64
    assert got.context == got.kv_tokens < 131_072
    assert got.arenas["workspace"] + got.arenas["logits"] <= got.arenas["kv"] / 8


def test_a_context_that_is_cut_is_told() -> None:
    got = plan(LARGE, 20 * GIB)
    assert f"the KV cache holds {got.context:,} tokens: longer rows are refused" in got.reasons


def test_rows_that_cannot_fit_by_any_means_do_not_narrow_the_passes_either() -> None:
    got = plan(LARGE, 20 * GIB, Workload(longest_sequence=100_000))
    assert got.batch_size >= 128
    assert got.context < 100_000


def test_just_enough_for_one_sequence_is_enough() -> None:
    shape = replace(model(), context=LEAST_CONTEXT)
    least = least_bytes(shape, Workload(), "cpu", None)
    got = plan(shape, least)
    assert (got.batch_size, got.prefill_tokens) == (1, 1)
    with pytest.raises(DoesNotFitError):
        plan(shape, least - 1)


def test_a_refusal_names_every_part_and_their_sum() -> None:
    shape = model(layers=8, weight_bytes=500 * MIB, vocab=100)
    with pytest.raises(DoesNotFitError) as refused:
        plan(shape, 300 * MIB, beside=100 * MIB)
    said = str(refused.value)
    kv = LEAST_CONTEXT * shape.kv_bytes_per_token // MIB
    assert "beside 100 MiB + weights 500 MiB" in said
    assert f"kv {kv:,} MiB for one sequence of 1,024 tokens = {600 + kv:,} MiB" in said
    assert "limits.cpu_memory allows 300 MiB" in said
    assert "lower limits.context" in said
