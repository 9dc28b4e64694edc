"""What computing a batch takes: as timed for the model, else from its products; by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.policies.machines import LLAMA_2_13B, TWO_CORES, model
from tightrun.policies.compute_times import LAYER_CALL_S, ComputeTimes
from tightrun.policies.hardware import Rates, WorkTimes
from tightrun.policies.shape import ModelShape

SHAPE = model(4, 256, 4, 2, 64, 512, 1000)
WORK = WorkTimes(
    layer_s=((1, 1e-3), (100, 2e-3)),
    head_s=((1, 5e-4), (100, 6e-4)),
    attended_bytes_per_s=1e10,
    attended_flops_per_s=2e11,
    batch_s=1e-5,
    pass_s=1e-4,
)
TIMED = ComputeTimes(SHAPE, replace(TWO_CORES, work=WORK))
PRODUCTS = ComputeTimes(SHAPE, TWO_CORES)


def test_the_model_takes_what_its_layer_was_timed_at() -> None:
    assert TIMED.dense_s(100) == pytest.approx(4 * 2e-3)
    assert TIMED.head_s(100) == pytest.approx(6e-4)


def test_decode_reads_its_context_at_the_timed_rate() -> None:
    seconds = TIMED.attention_s(8, 4000, 4000)
    assert seconds == pytest.approx(4000 * SHAPE.kv_bytes_per_token / 1e10)


def test_prefill_attends_at_the_timed_rate_of_products() -> None:
    tokens = 1000
    attended = tokens * (tokens + 1) // 2
    more = TIMED.attention_s(tokens, attended, tokens) - TIMED.attention_s(tokens, tokens, tokens)
    assert more == pytest.approx(SHAPE.attention_flops(1, attended - tokens) / 2e11)


def test_where_nobody_timed_the_model_it_is_its_products_and_calls() -> None:
    products_s = SHAPE.dense_flops_per_token * 256 / TWO_CORES.flops_at(256)
    assert PRODUCTS.dense_s(256) == pytest.approx(products_s + 4 * LAYER_CALL_S)
    assert (PRODUCTS.batch_s, PRODUCTS.pass_s) == (0.0, 0.0)


def test_every_layer_s_attention_takes_its_calls_beside_what_it_reads() -> None:
    timed = ComputeTimes(
        SHAPE, replace(TWO_CORES, work=replace(WORK, attention_s=1e-4, context_s=2e-4))
    )
    more_s = timed.attention_s(8, 4000, 4000) - TIMED.attention_s(8, 4000, 4000)
    assert more_s == pytest.approx(4 * 1e-4)
    assert timed.attention_s(0, 0, 0) == 0.0
    assert (TIMED.offload_s, timed.offload_s) == (0.0, pytest.approx(4 * 2e-4))


def test_no_rows_take_no_time() -> None:
    assert PRODUCTS.dense_s(0) == PRODUCTS.head_s(0) == PRODUCTS.attention_s(0, 0, 0) == 0.0


def experts(share: float) -> ModelShape:
    """A model of which a token is multiplied with a share of the weights."""
    layer = SHAPE.layers[0]
    stored = round(layer.weight_bytes / share)
    return replace(SHAPE, layers=(replace(layer, weight_bytes=stored),) * 4)


def test_a_batch_reads_all_the_experts_that_its_rows_touch() -> None:
    slow = replace(TWO_CORES, memory_bytes_per_s=1e7)
    shape = experts(1 / 4)
    times = ComputeTimes(shape, slow)
    whole_s = sum(layer.weight_bytes for layer in shape.layers) / 1e7
    calls_s = 4 * LAYER_CALL_S
    assert times.dense_s(1) == pytest.approx(whole_s / 4 + calls_s, rel=1e-3)
    assert times.dense_s(64) == pytest.approx(whole_s + calls_s, rel=1e-3)


def test_reading_is_all_of_narrow_products_and_none_of_wide_ones() -> None:
    rates = Rates(((1, 1e10), (1000, 1e13)), 1e11)
    times = ComputeTimes(LLAMA_2_13B, rates)
    assert times.reading_s(1, 0) == pytest.approx(times.dense_s(1))
    assert times.reading_s(1000, 0) == 0.0


def test_windows_shorten_what_is_attended() -> None:
    half = replace(SHAPE.layers[0], window=100)
    windowed = replace(SHAPE, layers=(*SHAPE.layers[:2], half, half))
    seconds = ComputeTimes(windowed, TWO_CORES).attention_s(1, 1000, 1000)
    assert seconds == pytest.approx(0.55 * PRODUCTS.attention_s(1, 1000, 1000))
