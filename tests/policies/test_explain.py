"""Why a run is off its plan, on cases made for one cause each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrun.policies.explain import explain, is_warm
from tightrun.policies.measured import Assumed, Comparison, Pace, Used


def used(resource: str, planned_s: float, busy_s: float, per_s: float = 1e12) -> Used:
    """A resource that was planned to be busy for so long, and was for another time."""
    return Used(resource, planned_s, busy_s, per_s, per_s * planned_s / busy_s)


def run(passes_s: float, *resources: Used, **other: object) -> Comparison:
    """A run whose passes were to take as long as their busiest resource."""
    busiest_s = max(x.planned_s for x in resources)
    compared = Comparison(
        passes=100, passes_planned_s=busiest_s, passes_s=passes_s, resources=resources
    )
    return replace(compared, **other)  # type: ignore[arg-type]


def text(compared: Comparison, *, whole: bool = False) -> str:
    explained = explain(compared, whole=whole)
    return "" if explained is None else explained.text


AS_PLANNED = run(100, used("compute", 60, 60), used("h2d", 100, 100))


def test_a_run_as_planned_needs_no_explanation() -> None:
    assert explain(AS_PLANNED, whole=False) is None


def test_nor_does_one_that_is_a_quarter_off_at_most() -> None:
    assert explain(run(124, used("h2d", 100, 124)), whole=False) is None


def test_a_slow_link_is_named_with_both_rates() -> None:
    slow = run(400, used("compute", 60, 66), used("h2d", 100, 400, per_s=12.4e9))
    assert text(slow) == (
        "slower than planned: the link to the device moved 3.1 GB/s where 12.4 was probed"
    )


def test_a_slow_disk_of_small_figures_is_told_in_megabytes() -> None:
    slow = run(200, used("compute", 60, 60), used("disk", 100, 200, per_s=480e6))
    assert text(slow) == "slower than planned: the disk moved 240 MB/s where 480 was probed"


def test_slow_computing_asks_for_other_work() -> None:
    slow = run(166.7, used("compute", 100, 166.7), used("h2d", 90, 90))
    assert text(slow) == (
        "slower than planned: compute was at 60 % of the probed rate: other work on the processors?"
    )


def test_a_slow_resource_that_nobody_waits_for_is_not_the_cause() -> None:
    hidden = run(150, used("compute", 100, 150), used("d2h", 5, 50))
    explained = explain(hidden, whole=False)
    assert explained is not None
    assert (explained.cause, explained.gap) == ("compute", 1.5)


def test_of_two_slow_ones_that_are_equally_busy_the_slower_is_named() -> None:
    both = run(300, used("compute", 100, 290), used("h2d", 60, 300))
    explained = explain(both, whole=False)
    assert explained is not None
    assert explained.cause == "h2d"


def test_passes_longer_than_their_parts_did_not_overlap() -> None:
    apart = run(190, used("compute", 90, 90), used("h2d", 100, 100))
    assert text(apart) == (
        "slower than planned: passes took 1.90 times as long as their busiest part: little "
        "overlapped"
    )


def test_phases_that_were_planned_apart_are_no_lack_of_overlap() -> None:
    phases = replace(
        run(300, used("compute", 120, 240), used("h2d", 120, 120)), passes_planned_s=200.0
    )
    explained = explain(phases, whole=False)
    assert explained is not None
    assert explained.cause == "compute"


def test_memory_is_never_the_cause_for_nobody_sees_it_busy() -> None:
    slow = run(200, used("compute", 100, 200), used("memory", 1, 200))
    explained = explain(slow, whole=False)
    assert explained is not None
    assert explained.cause == "compute"


def test_a_faster_machine_than_probed_is_told_too() -> None:
    assert text(run(50, used("h2d", 100, 50, per_s=10e9))) == (
        "faster than planned: the link to the device moved 20.0 GB/s where 10.0 was probed"
    )


def test_outputs_that_make_each_token_dearer_are_named() -> None:
    harder = replace(
        AS_PLANNED,
        planned=Pace(output_tokens_per_s=400),
        reachable_tokens_per_s=250,
        output=Assumed(128, 412),
        prompt=Assumed(500, 520),
    )
    assert text(harder) == (
        "slower than planned: outputs were longer than expected: 412 tokens where 128 were planned"
    )


def test_rows_that_take_longer_at_the_speed_that_was_planned_are_explained() -> None:
    longer = replace(AS_PLANNED, output=Assumed(128, 412))
    assert text(longer) == (
        "longer than planned: outputs were longer than expected: 412 tokens where 128 were planned"
    )


def test_prompts_are_named_where_they_are_what_is_off() -> None:
    harder = replace(
        AS_PLANNED,
        planned=Pace(output_tokens_per_s=400),
        reachable_tokens_per_s=250,
        output=Assumed(128, 130),
        prompt=Assumed(500, 1100),
    )
    assert "prompts were longer than expected: 1,100 tokens where 500" in text(harder)


def test_a_finished_run_is_judged_by_its_tokens_per_second() -> None:
    finished = replace(
        AS_PLANNED,
        planned=Pace(output_tokens_per_s=400),
        measured=Pace(output_tokens_per_s=200),
        together=Assumed(64, 30),
    )
    assert explain(finished, whole=False) is None
    assert text(finished, whole=True) == (
        "slower than planned: fewer sequences ran together: 30 where 64 were planned"
    )


def test_what_nothing_accounts_for_is_said_to_be_so() -> None:
    unknown = replace(
        AS_PLANNED, planned=Pace(output_tokens_per_s=400), measured=Pace(output_tokens_per_s=200)
    )
    assert text(unknown, whole=True) == (
        "slower than planned: no one rate or length accounts for it"
    )


def test_a_run_of_which_nothing_is_known_has_no_gap() -> None:
    assert explain(Comparison(), whole=True) is None


@pytest.mark.parametrize(
    ("passes", "share", "warm"),
    [(19, 0.0, False), (20, 0.0, True), (2, 0.1, True), (1, 0.5, False), (5, 0.05, False)],
)
def test_a_run_is_judged_after_twenty_passes_or_a_tenth(
    passes: int, share: float, warm: bool
) -> None:
    assert is_warm(passes, share) == warm


seconds = st.floats(0.1, 1e4)


@given(seconds, seconds, seconds, seconds, seconds)
def test_every_notable_gap_has_a_sentence_in_its_direction(
    passes_s: float, compute_s: float, busy_s: float, link_s: float, link_busy_s: float
) -> None:
    compared = run(passes_s, used("compute", compute_s, busy_s), used("h2d", link_s, link_busy_s))
    explained = explain(compared, whole=False)
    gap = passes_s / max(compute_s, link_s)
    assert (explained is None) == (0.8 < gap < 1.25)
    if explained is not None:
        assert explained.text.startswith("slower" if gap > 1 else "faster")
