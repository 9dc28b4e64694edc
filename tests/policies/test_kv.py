"""The split before every pass: the best there is, kept where little is to be gained."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policies.machines import LLAMA_2_13B, MULTI_HEAD, TWO_CORES
from tightrun.policies.forms import Form, recipe_of
from tightrun.policies.hardware import Rates
from tightrun.policies.kv import BatchLoad, Distributor, PassLoad, PassMeasured
from tightrun.policies.pass_times import PassTimes
from tightrun.policies.shape import ModelShape

RECIPE = recipe_of(MULTI_HEAD)


def distributor(
    form: Form = "tokens",
    *,
    forced: float | None = None,
    rates: Rates = TWO_CORES,
    shape: ModelShape = MULTI_HEAD,
    block_tokens: int = 16,
    most_rows: int = 0,
) -> Distributor:
    recipe = recipe_of(shape)
    return Distributor(
        shape, rates, form, block_tokens, forced=forced, most_rows=most_rows,
        activation_bytes=recipe.activation_bytes,
        projection_flops_per_token=recipe.projection_flops,
    )  # fmt: skip


def decoding(*offloaded: int, present: tuple[int, ...] = (), rows: int = 8) -> PassLoad:
    """A decode pass over batches with so much context off the device."""
    present = present or (0,) * len(offloaded)
    return PassLoad(
        tuple(
            BatchLoad(rows, rows, tokens, tokens, now, rows, rows, tokens)
            for tokens, now in zip(offloaded, present, strict=True)
        )
    )


def slowest_s(load: PassLoad, split: tuple[int, ...], form: Form = "tokens") -> float:
    """Seconds of a pass that has always had this split."""
    times = PassTimes(MULTI_HEAD, TWO_CORES, form, RECIPE)
    share = sum(split) / max(1, load.offloaded_tokens)
    link_s = max(times.link_in_s(load, split), times.link_out_s(load, share))
    return max(times.compute_s(load)(split), link_s, times.disk_s(load))


# Among batches of a block or two, one block more is a jump of several per cent either way.
batches = st.lists(st.one_of(st.just(0), st.integers(4, 40)), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(batches, st.integers(1, 64), st.sampled_from(["tokens", "activations"]), st.integers(0, 10))
def test_no_other_split_of_the_blocks_is_faster(
    blocks: list[int], rows: int, form: Form, weights: int
) -> None:
    sized = [16 * b + 5 for b in blocks]
    load = replace(decoding(*sized, rows=rows), weight_bytes_in=weights * 10**7)
    ratio = distributor(form).foresee(load)
    found_s = slowest_s(load, split_of(load, ratio), form)
    counts = range(sum(-(-tokens // 16) for tokens in sized) + 1)
    best_s = min(slowest_s(load, split_of(load, n / counts[-1]), form) for n in counts)
    assert found_s <= best_s * 1.1  # of a small batch, one block is as much


def split_of(load: PassLoad, share: float) -> tuple[int, ...]:
    """The share of each batch, to the token."""
    return tuple(round(share * batch.offloaded_tokens) for batch in load.batches)


def test_compute_and_link_end_together() -> None:
    predicted = distributor().decide(decoding(4096, 4096, 4096, 4096)).predicted
    assert predicted.compute_s == pytest.approx(predicted.link_in_s, rel=0.01)


def test_what_is_recomputed_is_whole_blocks_shared_over_the_batches() -> None:
    decision = distributor().decide(decoding(4096, 4096, 2048))
    assert all(tokens % 16 == 0 for tokens in decision.recomputed)
    first, second, third = decision.recomputed
    assert abs(first - second) <= 16
    assert third == pytest.approx(first / 2, abs=16)
    assert decision.ratio == sum(decision.recomputed) / (4096 + 4096 + 2048)


def test_a_pass_bound_by_compute_fetches_all() -> None:
    fast_link = replace(TWO_CORES, h2d_bytes_per_s=1e12, d2h_bytes_per_s=1e12)
    decision = distributor(rates=fast_link).decide(decoding(4096, 4096))
    assert decision.recomputed == (0, 0)


def test_weights_on_the_link_let_more_be_recomputed() -> None:
    load = decoding(4096, 4096)
    busy = replace(load, weight_bytes_in=200_000_000)
    assert distributor().foresee(busy) > distributor().foresee(load)


def test_no_more_is_recomputed_than_helps_where_a_disk_is_slowest() -> None:
    load = decoding(4096, 4096)
    from_disk = replace(load, weight_bytes_disk=10**11)
    assert distributor().decide(from_disk).recomputed == (0, 0)


def test_replayed_tokens_share_the_rows_of_their_batch() -> None:
    decision = distributor(most_rows=300).decide(decoding(4096, 4096))
    assert decision.recomputed == (288, 288)


@pytest.mark.parametrize("forced", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("offloaded", [0, 7, 16, 333, 4096])
def test_a_forced_ratio_is_kept_to_the_nearest_block(forced: float, offloaded: int) -> None:
    decision = distributor(forced=forced).decide(decoding(offloaded, 2 * offloaded))
    for tokens, whole in zip(decision.recomputed, (offloaded, 2 * offloaded), strict=True):
        assert abs(tokens - forced * whole) <= 8 + (whole % 16) / 2
        assert tokens % 16 == 0 or tokens == whole
    assert decision.ratio == forced


def test_all_means_every_last_token() -> None:
    assert distributor(forced=1.0).decide(decoding(37, 5)).recomputed == (37, 5)


def test_a_form_that_cannot_pay_recomputes_nothing() -> None:
    decision = distributor("none").decide(decoding(4096, 4096))
    assert (decision.ratio, decision.recomputed, decision.form) == (0.0, (0, 0), "none")


def test_no_context_off_the_device_is_no_ratio() -> None:
    decision = distributor().decide(decoding(0, 0))
    assert (decision.ratio, decision.recomputed) == (0.0, (0, 0))


def test_what_is_the_best_already_stays_to_the_token() -> None:
    chosen = distributor()
    first = chosen.decide(decoding(4096, 4096)).recomputed
    odd = (first[0] + 3, first[1])
    assert chosen.decide(decoding(4096, 4096, present=odd)).recomputed == odd


def test_as_contexts_grow_their_recomputed_part_does() -> None:
    chosen, present, ratios = distributor(), (0, 0), []
    for tokens in range(4096, 6144, 8):
        decision = chosen.decide(decoding(tokens, tokens, present=present))
        present = decision.recomputed
        ratios.append(sum(present) / (2 * tokens))
    assert max(ratios) - min(ratios) < 0.01


def test_going_back_writes_and_takes_no_longer_than_staying() -> None:
    chosen, present = distributor(), (4096, 4096)
    staying_s = slowest_s(decoding(4096, 4096, present=present), present)
    seen = [present]
    for _ in range(60):
        decision = chosen.decide(decoding(4096, 4096, present=present))
        assert decision.elapsed_s <= staying_s * 1.01
        present = decision.recomputed
        seen.append(present)
    assert sum(present) / 8192 == pytest.approx(
        distributor().foresee(decoding(4096, 4096)), rel=0.05
    )
    assert all(a >= b for x, y in itertools.pairwise(seen) for a, b in zip(x, y, strict=True))


def test_going_back_is_computed_once_more_and_written_out() -> None:
    times = PassTimes(MULTI_HEAD, TWO_CORES, "tokens", RECIPE)
    load = decoding(4096, present=(1600,))
    stays, returns = times.of_pass(load, (1600,), 0.0), times.of_pass(load, (0,), 0.0)
    assert returns.compute_s == stays.compute_s
    assert returns.link_in_s == stays.link_in_s
    written = (returns.link_out_s - stays.link_out_s) * TWO_CORES.d2h_bytes_per_s
    assert written == pytest.approx(1600 * RECIPE.kv_bytes)


def test_stored_kv_never_becomes_activations() -> None:
    decision = distributor("activations").decide(decoding(4096, 4096, present=(160, 320)))
    assert decision.recomputed == (160, 320)
    assert sum(decision.wanted) > 480
    assert decision.ratio == pytest.approx(sum(decision.wanted) / 8192)


@pytest.mark.parametrize("form", ["tokens", "activations"])
def test_replayed_tokens_are_never_written_and_activations_by_half(form: Form) -> None:
    times = PassTimes(MULTI_HEAD, TWO_CORES, form, RECIPE)
    load = decoding(4096)
    none, all_of_it = times.link_out_s(load, 0.0), times.link_out_s(load, 1.0)
    assert all_of_it == pytest.approx(0.0 if form == "tokens" else none / 2)


def prefilling(tokens: int, offloaded: int = 0) -> PassLoad:
    """A pass that computes eight prompts to their ends, beside what was there before."""
    before = 8 if offloaded else 0
    return PassLoad((BatchLoad(tokens, 8, tokens * 200, offloaded, 0, tokens, before, offloaded),))


def test_a_prefill_knows_what_will_be_recomputed_afterwards() -> None:
    later = distributor().foresee(decoding(4096))
    assert distributor().decide(prefilling(4096)).ratio == pytest.approx(later, abs=0.005)


def test_a_prefill_at_the_beginning_drops_nothing_and_brings_nothing_back() -> None:
    chosen = distributor()
    chosen.decide(decoding(4096))
    load = replace(prefilling(4096), batches=(replace(prefilling(4096, 4096).batches[0],
                   recomputed_tokens=48),))  # fmt: skip
    assert chosen.decide(load).recomputed == (48,)


def test_prefill_that_goes_on_counts_as_the_way_of_the_job() -> None:
    chosen = distributor()
    ratios = [chosen.decide(prefilling(8192, 4096)).ratio for _ in range(20)]
    assert ratios[0] > 0.1
    assert ratios[-1] == 0.0


def test_deciding_looks_at_few_splits_of_half_a_million_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen, load = distributor(shape=LLAMA_2_13B), decoding(*[512 * 2048] * 8, rows=512)
    looked_at, link_in_s = [], PassTimes.link_in_s

    def counted(times: PassTimes, load: PassLoad, split: tuple[int, ...]) -> float:
        looked_at.append(split)
        return link_in_s(times, load, split)

    monkeypatch.setattr(PassTimes, "link_in_s", counted)
    chosen.decide(load)
    assert 0 < len(looked_at) < 100


def test_a_pass_is_learnt_from_as_it_was() -> None:
    chosen, load = distributor(), decoding(4096, 4096)
    decision = chosen.decide(load)
    twice = PassMeasured(2.0, compute_s=2 * decision.predicted.compute_s)
    for _ in range(30):
        chosen.learn(twice)
    again = chosen.times.compute_s(load)(decision.recomputed) * chosen.corrections.compute.factor
    assert again == pytest.approx(twice.compute_s, rel=0.02)


def test_what_was_really_recomputed_counts() -> None:
    chosen, load = distributor(), decoding(4096, 4096)
    chosen.decide(load)
    really = chosen.times.compute_s(load)((64, 64))
    for _ in range(10):
        chosen.learn(PassMeasured(1.0, compute_s=really, recomputed=(64, 64)))
    assert chosen.corrections.compute.factor == pytest.approx(1.0)


def test_slow_prefill_does_not_make_decode_look_slow() -> None:
    chosen, load = distributor(), decoding(4096, 4096)
    before = chosen.foresee(load)
    for _ in range(10):
        wide = chosen.decide(prefilling(4096))
        chosen.learn(PassMeasured(9.0, compute_s=3 * wide.predicted.compute_s))
    assert chosen.foresee(load) == before
    assert chosen.corrections.prefill.factor > 2
