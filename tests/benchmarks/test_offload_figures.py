"""What `benchmarks.offload` makes of its measurements."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.offload.disk import best_of, layer_rate, ratio, reached_rate, shares
from benchmarks.offload.figures import (
    best_split,
    block_bound,
    correlation_of,
    decodes,
    is_steady,
    median_seconds,
    plan_error,
    seconds_at,
)
from benchmarks.offload.slices import summarise
from tightrun.core import StepRecord


def step(elapsed_s: float = 1.0, **changes: Any) -> StepRecord:
    told: dict[str, Any] = {
        **{"run": 1, "iteration": 1, "phase": "decode", "started_s": 0.0, "elapsed_s": elapsed_s},
        **{"batches": 1, "sequences": 4, "prefill_tokens": 0, "decode_tokens": 4},
        "context_tokens": 9,
    }
    return StepRecord(**{**told, **changes})


def triple(adaptive: float, static: float, sync: float, steady: bool = True) -> dict[str, Any]:
    seconds = {"adaptive": [adaptive], "static": [static], "sync": [sync]}
    return {"steady": steady, "seconds": seconds, "engine_bound_s": [adaptive / 2]}


def test_compute_and_link_end_together_at_the_best_split() -> None:
    split = best_split(fetch_s=1.0, saved=1.0, compute_s=lambda share: 4.0 * share)
    assert split.ratio == pytest.approx(0.2)
    assert split.seconds == pytest.approx(0.8)


def test_activations_save_half_of_what_they_take_the_place_of() -> None:
    split = best_split(fetch_s=1.0, saved=0.5, compute_s=lambda share: 0.5 * share)
    assert split.ratio == pytest.approx(1.0)
    assert split.seconds == pytest.approx(0.5)


def test_nothing_is_recomputed_where_compute_binds_already() -> None:
    split = best_split(fetch_s=1.0, saved=1.0, compute_s=lambda share: 2.0 + share)
    assert (split.ratio, split.seconds) == (0.0, 2.0)


@pytest.mark.parametrize(
    ("rows", "expected"), [(1, 2.0), (8, 2.0), (12, 3.0), (16, 4.0), (32, 8.0)]
)
def test_seconds_between_probes_are_linear_and_beyond_in_proportion(
    rows: int, expected: float
) -> None:
    assert seconds_at(((8, 2.0), (16, 4.0)), rows) == pytest.approx(expected)


def test_a_pass_is_bound_by_its_compute_or_by_its_bytes() -> None:
    assert block_bound(8, 16, 0.01, 0.1, streamed=0.0, link=1.0) == pytest.approx(1.38)
    assert block_bound(8, 16, 0.01, 0.1, streamed=4e9, link=1e9) == pytest.approx(4.0)


def test_a_probe_that_moved_by_more_than_a_twentieth_is_not_steady() -> None:
    assert is_steady(100.0, 104.9)
    assert is_steady(100.0, 95.1)
    assert not is_steady(100.0, 105.1)
    assert not is_steady(100.0, 94.9)


def test_only_passes_that_decode_everything_and_nothing_else_count() -> None:
    full, fewer = step(), step(sequences=3, decode_tokens=3)
    mixed = step(phase="mixed", prefill_tokens=5)
    assert decodes([mixed, full, fewer], 4) == [full]


def test_the_median_pass_and_the_median_error_of_the_plan() -> None:
    steps = [step(1.0, predicted_s=1.1), step(2.0, predicted_s=1.0), step(3.0, predicted_s=3.0)]
    assert median_seconds(steps) == 2.0
    assert plan_error(steps) == pytest.approx(0.1)


def test_passes_without_a_prediction_have_no_error() -> None:
    assert plan_error([step()]) is None


def test_what_does_not_vary_correlates_with_nothing() -> None:
    assert correlation_of([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) == pytest.approx(1.0)
    assert correlation_of([1.0, 2.0], [0.2, 0.2]) is None


def test_slices_are_ratios_of_medians_over_the_steady_triples() -> None:
    triples = [triple(1.0, 1.5, 8.0), triple(3.0, 6.0, 27.0), triple(2.0, 4.0, 18.0)]
    found = summarise([*triples, triple(50.0, 1.0, 1.0, steady=False)], bound_s=1.8)
    assert (found["static"], found["sync"]) == (2.0, 9.0)
    assert found["bound_share"] == pytest.approx(0.9)
    assert (found["kept_triples"], found["dropped_triples"]) == (3, 1)


def test_without_a_steady_triple_there_is_no_figure() -> None:
    found = summarise([triple(1.0, 2.0, 9.0, steady=False)], bound_s=1.0)
    assert found["static"] is None
    assert found["bound_share"] is None
    assert found["dropped_triples"] == 1


def test_the_disk_case_is_held_to_the_larger_of_its_bounds() -> None:
    run = {"disk_bytes": 4e9, "dense_flops": 1e12, "pass_s": [2.5, 2.0, 9.0]}
    assert shares(run, 2e9, 1e12)["bound_share"] == pytest.approx(2.0 / 2.5)
    assert shares(run, 4e9, 0.5e12)["bounds"] == {"disk_s": 1.0, "compute_s": 2.0}


def test_a_run_that_read_faster_than_the_probe_tells_its_rate() -> None:
    assert reached_rate({"disk_bytes": 4e9, "disk_s": [4.0, 2.0]}) == 2e9
    assert reached_rate({"disk_bytes": 0, "disk_s": [0.0]}) == 0.0


def test_the_rate_of_a_layer_takes_each_product_at_its_best() -> None:
    points = [
        {"shape": "2x2", "flops_per_s": 1.0},
        {"shape": "2x2", "flops_per_s": 4.0},
        {"shape": "2x6", "flops_per_s": 2.0},
    ]
    assert layer_rate([(2, 2), (2, 2), (2, 6)], points) == pytest.approx(20 / (1 + 1 + 6))


def test_the_best_batch_of_a_rival_counts_and_its_errors_are_kept() -> None:
    found = {"16": {"tokens_per_s": 3.0}, "64": {"tokens_per_s": 5.0}, "256": {"error": "killed"}}
    best = best_of(found)
    assert (best["tokens_per_s"], best["batch"]) == (5.0, 64)
    assert best["batches"]["256"] == {"error": "killed"}
    assert ratio(20.0, best) == 4.0


def test_a_rival_that_runs_at_no_batch_size_is_null_with_its_errors() -> None:
    none = best_of({"16": {"error": "killed"}})
    assert none == {"tokens_per_s": None, "error": "batch 16: killed"}
    assert ratio(20.0, none) is None
