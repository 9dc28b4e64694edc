"""What recomputing could gain by probed times, and how what it gained stands beside it."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.offload.__main__ import beside_earlier, recompute_figures
from benchmarks.offload.recompute import FIXED, spread
from benchmarks.offload.recompute_figures import BlockShape, LayerTimes, summarise
from tests.benchmarks.test_offload_figures import step

SHAPE = BlockShape(batch=8, batches=4, layers=12, kv_bytes=4096)
# Replay in proportion to the rows, projection four times as fast, nothing else to compute.
TIMES = LayerTimes(
    replay=((1, 1e-4), (4096, 4096e-4)),
    project=((1, 0.25e-4), (4096, 4096 * 0.25e-4)),
    attend={64: 0.0, 512: 0.0},
    head_s=0.0,
)


def run(setting: str, seconds: dict[int, float], ratio: float = 0.0) -> dict[str, Any]:
    phases = {
        context: [step(s, recompute_ratio=ratio, predicted_s=s, context_tokens=context)]
        for context, s in seconds.items()
    }
    return {"setting": setting, "phases": phases}


def found(runs: list[dict[str, Any]]) -> dict[str, Any]:
    ideal = {context: TIMES.ideal(context, "tokens", SHAPE) for context in (64, 512)}
    return summarise(runs, ideal)


def test_over_the_link_a_token_takes_a_quarter_of_its_replay() -> None:
    assert TIMES.link(SHAPE) == pytest.approx(4096 / (1e-4 / 4))


def test_without_other_work_replaying_gains_a_quarter() -> None:
    zero_s, split = TIMES.ideal(512, "tokens", SHAPE)
    assert zero_s == pytest.approx(48 * 8 * 512 * 0.25e-4)
    assert split.ratio == pytest.approx(0.2, abs=0.01)
    assert zero_s / split.seconds == pytest.approx(1.25, abs=0.01)


def test_what_is_decoded_anyway_leaves_less_to_gain_at_short_contexts() -> None:
    gains = {}
    for context in (64, 512):
        zero_s, split = TIMES.ideal(context, "tokens", SHAPE)
        gains[context] = zero_s / split.seconds
    assert gains[64] < gains[512] < 1.25


def test_projecting_as_fast_as_fetching_gains_up_to_a_half() -> None:
    zero_s, split = TIMES.ideal(512, "activations", SHAPE)
    assert split.ratio == pytest.approx(2 / 3, abs=0.02)
    assert zero_s / split.seconds == pytest.approx(1.5, abs=0.02)


def test_the_run_through_all_is_the_sum_of_its_phases_medians() -> None:
    shown = found(
        [
            run("0", {64: 1.2, 512: 6.0}),
            run("0.2", {64: 1.2, 512: 5.0}),
            run("auto", {64: 1.0, 512: 5.0}, ratio=0.2),
        ]
    )
    assert shown["gain"] == pytest.approx(7.2 / 6.0)
    assert shown["of_ideal"] == pytest.approx(shown["gain"] / shown["ideal_gain"])
    assert shown["best_fixed"] == "0.2"
    assert shown["vs_best_fixed"] == pytest.approx(6.2 / 6.0)


def test_each_phase_is_compared_with_its_own_best_fixed_ratio() -> None:
    shown = found(
        [
            run("0", {64: 0.9, 512: 6.0}),
            run("0.2", {64: 1.2, 512: 5.0}),
            run("auto", {64: 1.0, 512: 5.0}, ratio=0.2),
        ]
    )
    assert shown["phases"]["64"]["best_fixed"] == "0"
    assert shown["phases"]["64"]["vs_best_fixed"] == pytest.approx(0.9)
    assert shown["phases"]["512"]["gain"] == pytest.approx(1.2)


def test_runs_of_one_setting_count_together() -> None:
    shown = found(
        [
            run("0", {64: 1.0, 512: 6.0}),
            run("auto", {64: 1.0, 512: 4.0}),
            run("auto", {64: 1.0, 512: 6.0}),
        ]
    )
    assert shown["through_s"]["auto"] == pytest.approx(6.0)


def test_both_forms_stand_in_the_contracts_figures_and_the_worse_against_fixed() -> None:
    figures = recompute_figures(
        {
            "tokens": {"gain": 1.2, "of_ideal": 0.95, "vs_best_fixed": 1.01},
            "activations": {"gain": 1.5, "of_ideal": 0.9, "vs_best_fixed": 0.99},
        }
    )
    assert figures == {
        "tokens": 1.2,
        "tokens_of_ideal": 0.95,
        "activations": 1.5,
        "activations_of_ideal": 0.9,
        "adaptive_vs_best_fixed": 0.99,
    }


def test_a_form_that_failed_is_null() -> None:
    figures = recompute_figures({"tokens": None})
    assert figures["tokens"] is None
    assert figures["adaptive_vs_best_fixed"] is None


def test_fewer_fixed_ratios_are_spread_over_the_ten() -> None:
    assert spread("activations", 10) == FIXED["activations"]
    assert spread("activations", 3) == (0.2, 0.6, 0.9)


def test_a_part_run_again_keeps_what_it_left_out() -> None:
    kept = {"measured": "then", "8": {"static": 1.7}, "2": {"static": 1.1}, "errors": {}}
    new = {"2": {"static": 1.2}, "4": None, "errors": {"4": "no"}}
    assert beside_earlier("slices", kept, new) == {
        "8": {"static": 1.7},
        "2": {"static": 1.2},
        "errors": {"4": "no"},
    }
    tokens = {"gain": 1.2, "of_ideal": 0.95, "vs_best_fixed": 1.01}
    found = beside_earlier(
        "recompute", {"forms": {"tokens": tokens}}, {"forms": {"activations": None}, "errors": {}}
    )
    assert found["tokens"] == 1.2
    assert found["forms"] == {"tokens": tokens}
