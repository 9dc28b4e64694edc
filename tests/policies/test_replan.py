"""Other sizes in mid-run: only where clearly better, within the plan, and without swinging."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policies.machines import LLAMA_2_13B, rates
from tightrun.policies.corrections import Correction, Corrections
from tightrun.policies.foresight import Foresight, Sizes, corrected_rates
from tightrun.policies.forms import recipe_of
from tightrun.policies.hardware import WorkTimes
from tightrun.policies.lengths import Lengths
from tightrun.policies.pass_cost import Policy
from tightrun.policies.placement import Placement
from tightrun.policies.plan import Predicted
from tightrun.policies.replan import AT_FIRST, EVERY, LEAST_GAIN, PATIENCE, Learned, Replanner

RECIPE = recipe_of(LLAMA_2_13B, projects=False)
LENGTHS = Lengths((400,), 200, 100_000, 200)  # outputs that are all alike
# Weights and KV are streamed: prefill hides behind them as long as it is computed fast enough.
MACHINE = rates(150e12, 300, 1e12, 25e9)
STREAMED = Foresight(
    LLAMA_2_13B,
    RECIPE,
    Placement(4, 64, 2048, 2048, 16, 0, lane_blocks=64 * 48, streamed=40, weight_bytes=26e9),
    Policy(),
    LENGTHS,
    MACHINE,
)
PLANNED = Sizes(64, 4, 2048)
# All weights on the device, and the KV of half of the sequences.
RESIDENT = Foresight(
    LLAMA_2_13B,
    RECIPE,
    Placement(2, 20, 2048, 2048, 16, 16 * 40, lane_blocks=16 * 40),
    Policy(),
    LENGTHS,
    rates(150e12, 300, 1e12, 400e9),
)


def learned(
    *, compute: float = 1.0, h2d: float = 1.0, output: float = 0.0, left: int | None = 50_000
) -> Learned:
    corrections = Corrections(
        compute=Correction(compute), prefill=Correction(compute), link_in=Correction(h2d)
    )
    return Learned(corrections, 0.0, output, left)


SLOW = learned(compute=8.0)


@dataclass(frozen=True)
class Told(Foresight):
    """Foretells that 512 prefill tokens are a tenth faster when computing is slow, and `back` is
    how many times as fast 2,048 are when it is not."""

    back: float = 1.0

    def predicted(self, **given: Any) -> Predicted:
        sizes: Sizes = given["sizes"]
        slow = given["rates"].flops_at(2048) < MACHINE.flops_at(2048) / 2
        fast = {512: 1.1} if slow else {2048: self.back}
        return Predicted(0.0, 0.0, 0.0, 100 * fast.get(sizes.prefill_tokens, 1.0), "compute")


def told(back: float = 1.0) -> Replanner:
    return Replanner(Told(*(getattr(STREAMED, x.name) for x in fields(STREAMED)), back))


def changes(replanner: Replanner, known: Learned, passes: int) -> list[int]:
    """The passes after which something was changed, of so many with the same knowledge."""
    return [n for n in range(passes) if replanner.is_due(n) and replanner.look(n, known)]


def speed(foresight: Foresight, known: Learned, sizes: Sizes) -> float:
    slow = corrected_rates(foresight.rates, known.corrections, foresight.sizes.batch_size)
    return foresight.predicted(rates=slow, sizes=sizes).output_tokens_per_s


def test_a_run_as_planned_keeps_its_sizes() -> None:
    replanner = Replanner(STREAMED)
    assert changes(replanner, learned(), 1000) == []
    assert replanner.sizes == PLANNED


def test_slower_computing_takes_less_prefill_at_once_to_hide_it_behind_the_link() -> None:
    replanner = Replanner(STREAMED)
    assert changes(replanner, SLOW, 80) == [AT_FIRST + EVERY * (PATIENCE - 1)]
    assert replanner.sizes == replace(PLANNED, prefill_tokens=512)
    before = speed(STREAMED, SLOW, PLANNED)
    assert speed(STREAMED, SLOW, replanner.sizes) > (1 + LEAST_GAIN) * before


def test_a_link_that_is_far_slower_takes_sequences_off_it() -> None:
    replanner = Replanner(RESIDENT)
    changes(replanner, learned(h2d=8.0), 80)
    assert replanner.sizes == Sizes(20, 1, 2048)


def test_the_sentence_says_what_changed_by_how_much_and_why() -> None:
    replanner = Replanner(STREAMED)
    said = [replanner.look(32 + 16 * n, SLOW) for n in range(PATIENCE)]
    change = said[-1]
    assert change is not None
    assert said[:-1] == [None] * (PATIENCE - 1)
    assert (change.before, change.after) == (PLANNED, replanner.sizes)
    assert change.text == (
        "planned anew: 512 prefill tokens a pass instead of 2,048 from here on, "
        f"{change.gain:.0%} faster by the cost model, since computing takes 8.0 times as long as "
        "planned"
    )


def test_what_was_noise_changes_nothing() -> None:
    replanner = told()
    for number in range(100):
        assert replanner.look(number, SLOW if number % 2 else learned()) is None


def test_it_settles_and_does_not_swing() -> None:
    replanner = Replanner(STREAMED)
    assert len(changes(replanner, SLOW, 5000)) <= 2


def test_after_a_change_the_next_look_waits_for_twice_as_long() -> None:
    replanner = Replanner(STREAMED)
    (changed,) = changes(replanner, SLOW, 80)
    assert not replanner.is_due(changed + 2 * AT_FIRST - 1)
    assert replanner.is_due(changed + 2 * AT_FIRST)


@pytest.mark.parametrize(("back", "goes_back"), [(1.07, False), (1.12, True)])
def test_the_way_back_needs_twice_the_gain(back: float, goes_back: bool) -> None:
    replanner = told(back)
    changes(replanner, SLOW, 80)
    assert replanner.sizes.prefill_tokens == 512
    for number in range(PATIENCE):
        replanner.look(1000 + number, learned())
    assert (replanner.sizes == PLANNED) == goes_back


def test_near_the_end_nothing_is_changed_any_more() -> None:
    assert changes(Replanner(STREAMED), learned(compute=8.0, left=100), 1000) == []


def test_a_job_without_a_known_end_is_looked_at_all_the_same() -> None:
    assert changes(Replanner(STREAMED), learned(compute=8.0, left=None), 200) != []


@settings(max_examples=10, deadline=None)
@given(st.floats(0.2, 20), st.floats(0.2, 20), st.sampled_from([0.0, 20.0, 500.0]))
def test_sizes_are_never_beyond_the_plan(h2d: float, compute: float, output: float) -> None:
    replanner = Replanner(STREAMED)
    changes(replanner, learned(h2d=h2d, compute=compute, output=output), 200)
    s = replanner.sizes
    assert 1 <= s.batch_size <= 64
    assert 1 <= s.batches <= 4
    assert 16 <= s.prefill_tokens <= 2048


def test_corrected_rates_are_those_that_were_measured() -> None:
    corrections = Corrections(
        compute=Correction(2.0),
        prefill=Correction(4.0),
        link_in=Correction(5.0),
        link_out=Correction(10.0),
        disk=Correction(3.0),
    )
    work = WorkTimes(((1, 0.1), (64, 0.2)), ((1, 0.3),), 1e9, 1e12, 0.01, 0.02)
    found = corrected_rates(replace(MACHINE, work=work), corrections, 16)
    assert found.h2d_bytes_per_s == MACHINE.h2d_bytes_per_s / 5
    assert found.d2h_bytes_per_s == MACHINE.d2h_bytes_per_s / 10
    assert found.disk_bytes_per_s == MACHINE.disk_bytes_per_s / 3
    assert found.flops_at(16) == MACHINE.flops_at(16) / 2
    assert found.flops_at(2048) == MACHINE.flops_at(2048) / 4
    assert found.work == WorkTimes(((1, 0.2), (64, 0.8)), ((1, 0.6),), 0.5e9, 0.25e12, 0.02, 0.04)


def test_lengths_are_scaled_to_the_means_that_were_found() -> None:
    found = STREAMED.lengths_with(prompt=800, output=50, sequences=9)
    assert (found.prompts, found.output, found.sequences) == ((800,), 50, 9)
    assert STREAMED.lengths_with() == STREAMED.lengths
    assert STREAMED.lengths_with(output=9999).output == 200


def test_what_is_not_given_is_as_planned() -> None:
    planned = STREAMED.predicted()
    assert STREAMED.predicted(sizes=STREAMED.sizes, rates=MACHINE, lengths=LENGTHS) == planned
