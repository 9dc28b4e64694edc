"""A pass from its counts: by hand, and what it adds up to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.policies.machines import LLAMA_2_13B, MULTI_HEAD, TWO_CORES
from tightrun.policies.forms import Form, recipe_of
from tightrun.policies.hardware import Rates, WorkTimes
from tightrun.policies.loads import BatchLoad, PassLoad
from tightrun.policies.pass_cost import BatchCounts, PassCost, Policy
from tightrun.policies.pass_times import PassTimes
from tightrun.policies.schedule import Streaming
from tightrun.policies.shape import ModelShape

KV = MULTI_HEAD.kv_bytes_per_token
RESIDENT = Streaming(12, 0)
DECODING = BatchCounts(8, 8, 4096, 4096, 4096, 8, 8)


def cost(
    policy: Policy | None = None, rates: Rates = TWO_CORES, shape: ModelShape = MULTI_HEAD
) -> PassCost:
    return PassCost(shape, rates, recipe_of(shape), policy or Policy())


def test_links_are_busy_with_all_that_crosses_them_and_the_disk_with_its_part() -> None:
    streaming = cost().streaming(12, 3e8, 1e8, 2, from_disk=False)
    found = cost().of_pass([DECODING] * 2, streaming)
    _, _, h2d_s, d2h_s, disk_s = found.busy_s
    assert h2d_s == pytest.approx((3e8 + 2 * 4096 * KV) / TWO_CORES.h2d_bytes_per_s)
    assert d2h_s == pytest.approx(2 * 8 * KV / TWO_CORES.d2h_bytes_per_s)
    assert disk_s == pytest.approx(1e8 / TWO_CORES.disk_bytes_per_s)


def test_weights_from_the_disk_into_the_slots_cross_no_link() -> None:
    streaming = cost().streaming(12, 0.0, 1e8, 2, from_disk=True)
    found = cost().of_pass([BatchCounts(8, 8, 100, 100)], streaming)
    assert found.busy_s[2] == 0.0
    assert found.busy_s[4] == pytest.approx(1e8 / TWO_CORES.disk_bytes_per_s)


def test_sync_brings_the_weights_for_each_batch() -> None:
    streaming = cost().streaming(12, 3e8, 0.0, 2, from_disk=False)
    batch = BatchCounts(8, 8, 100, 100)
    found = cost(Policy("sync")).of_pass([batch] * 3, streaming)
    assert found.busy_s[2] == pytest.approx(3 * 3e8 / TWO_CORES.h2d_bytes_per_s)


def beside(takes: float, loses: float) -> Rates:
    work = WorkTimes(((1, 1e-2), (64, 1e-2)), ((1, 1e-3),), 1e12, 1e12)
    return replace(TWO_CORES, work=replace(work, disk_takes=takes, disk_loses=loses))


@pytest.mark.parametrize("from_disk", [False, True])
def test_computing_and_reading_take_their_shares_from_each_other(from_disk: bool) -> None:
    batch = BatchCounts(8, 8, 100, 100)
    streaming = cost().streaming(12, 3e6, 1e8, 2, from_disk=from_disk)
    usual, slower = (
        cost(rates=rates).of_pass([batch] * 2, streaming)
        for rates in (beside(0.0, 0.0), beside(0.4, 0.3))
    )
    computing_s, disk_s = sum(usual.busy_s[:2]), usual.busy_s[4]
    assert sum(slower.busy_s[:2]) == pytest.approx(computing_s + 0.4 * disk_s / 0.7)
    assert slower.busy_s[4] == pytest.approx(disk_s + 0.3 * computing_s / 0.6)
    assert slower.elapsed_s >= max(slower.busy_s)


def test_without_a_disk_nothing_is_taken() -> None:
    batch = BatchCounts(8, 8, 100, 100)
    found = [
        cost(rates=rates).of_pass([batch], RESIDENT)
        for rates in (beside(0.0, 0.0), beside(0.4, 0.3))
    ]
    assert found[0] == found[1]


def test_both_ways_to_reckon_meet_where_computing_and_reading_end_together() -> None:
    rates = beside(0.4, 0.3)
    computing_s = 1.0
    compute_s, disk_s = rates.beside_disk(computing_s, 0.7 * computing_s / 0.6)
    assert compute_s == pytest.approx(disk_s)


def test_context_off_the_device_takes_the_host_some_time_in_every_layer() -> None:
    work = WorkTimes(((1, 1e-2), (64, 1e-2)), ((1, 1e-3),), 1e12, 1e12)
    near, far = (
        cost(rates=replace(TWO_CORES, h2d_bytes_per_s=1e15, work=replace(work, context_s=seconds)))
        for seconds in (0.0, 1e-3)
    )
    here = BatchCounts(8, 8, 4096, 4096)
    for batch, more_s in ((here, 0.0), (DECODING, 12 * 1e-3)):
        seconds = [x.of_pass([batch], RESIDENT).elapsed_s for x in (near, far)]
        assert seconds[1] - seconds[0] == pytest.approx(more_s)


@pytest.mark.parametrize("form", ["tokens", "activations"])
def test_compute_and_link_end_together_where_recomputing_helps(form: Form) -> None:
    found = cost(Policy(form=form)).of_pass([DECODING] * 4, RESIDENT)
    compute_s, memory_s, h2d_s, _, _ = found.busy_s
    assert 0 < found.ratio < 1
    assert compute_s + memory_s == pytest.approx(h2d_s, rel=0.01)


@pytest.mark.parametrize("form", ["none", "tokens", "activations"])
def test_the_search_and_the_distributor_reckon_alike(form: Form) -> None:
    rates = replace(TWO_CORES, h2d_bytes_per_s=1e12)
    found = cost(Policy(form=form), rates).of_pass([DECODING] * 4, RESIDENT)
    times = PassTimes(MULTI_HEAD, rates, form, recipe_of(MULTI_HEAD))
    load = PassLoad((BatchLoad(8, 8, 4096, 4096, 0, 8, 8, 4096),) * 4)
    assert found.ratio == 0.0
    assert sum(found.busy_s[:2]) == pytest.approx(times.compute_s(load)((0,) * 4))


def test_equal_batches_take_as_long_as_counted_one_by_one() -> None:
    streaming = cost().streaming(12, 3e8, 0.0, 2, from_disk=False)
    one_by_one = cost().of_pass([DECODING] * 4, streaming).elapsed_s
    assert cost().alike_s(DECODING, 4, streaming, 0) == pytest.approx(one_by_one)


def test_a_link_that_is_slower_both_ways_together_holds_a_pass_up() -> None:
    prefill = BatchCounts(2048, 8, 2048 * 200, 4096, 4096, 8, 2048)
    fast = replace(TWO_CORES, flops_per_s=((1, 1e15),), memory_bytes_per_s=1e15)
    both = replace(fast, duplex_bytes_per_s=1.2 * fast.h2d_bytes_per_s)
    moved = (4096 + 2048) * KV
    assert cost(rates=both).of_pass([prefill], RESIDENT).elapsed_s == pytest.approx(
        moved / both.duplex_bytes_per_s
    )
    assert cost(rates=fast).of_pass([prefill], RESIDENT).elapsed_s < 0.9 * (
        moved / both.duplex_bytes_per_s
    )


def test_context_attended_on_the_host_is_not_fetched() -> None:
    rates = replace(TWO_CORES, host_bytes_per_s=2e10)
    serial = cost(Policy("static", stores_beside=True, host_attention="serial"), rates).of_pass(
        [DECODING], RESIDENT
    )
    beside = cost(Policy(host_attention="beside"), rates).of_pass([DECODING], RESIDENT)
    host_s = 4096 * KV / 2e10
    assert serial.busy_s[2] == beside.busy_s[2] == 0.0
    assert serial.elapsed_s == pytest.approx(sum(beside.busy_s[:2]) + host_s, rel=0.02)
    assert beside.elapsed_s == pytest.approx(max(host_s, sum(beside.busy_s[:2])), rel=0.02)


def test_windows_leave_less_to_be_fetched() -> None:
    layers = tuple(replace(layer, window=64) for layer in MULTI_HEAD.layers)
    windowed = replace(MULTI_HEAD, layers=layers)
    found = cost(shape=windowed).of_pass([DECODING], RESIDENT)
    assert found.busy_s[2] == pytest.approx(8 * 64 * KV / TWO_CORES.h2d_bytes_per_s)


def test_replayed_tokens_share_the_rows_of_their_batch() -> None:
    narrow = cost(Policy(form="tokens")).of_pass([DECODING], RESIDENT, most_rows=108)
    assert narrow.busy_s[2] == pytest.approx((4096 - 100) * KV / TWO_CORES.h2d_bytes_per_s)


def test_a_pass_of_a_large_model_waits_for_memory_when_it_decodes_few_rows() -> None:
    card = Rates(((1, 1e12), (512, 5e14)), 1e12, 25e9, 25e9)
    found = PassCost(LLAMA_2_13B, card, recipe_of(LLAMA_2_13B), Policy())
    compute_s, memory_s, *_ = found.of_pass([BatchCounts(4, 4, 400, 400)], RESIDENT).busy_s
    assert memory_s > compute_s
