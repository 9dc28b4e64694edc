"""Rates and the time left."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tightrun.cli.progress import Meter, Progress
from tightrun.cli.tally import Tally
from tightrun.core import Completion


@dataclass(frozen=True)
class At:
    """An engine at one moment."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    predicted_remaining_tokens: int = 0
    running: int = 0
    waiting: int = 0
    gpu_bytes: int = 0
    gpu_budget: int = 0
    cpu_bytes: int = 0
    cpu_budget: int = 0
    planned_output_tokens_per_s: float = 0.0
    mean_output_tokens: float = 0.0
    planned_seconds: float = 0.0


def counts(*, done: int = 0, output_tokens: int = 0) -> Tally:
    tally = Tally()
    for row in range(done):
        tally.add(Completion(row, f"r{row}"))
    tally.output_tokens = output_tokens
    return tally


def measure(meter: Meter, now_s: float, engine: At, tally: Tally | None = None) -> Progress:
    return meter.measure(now_s, rows=100, counts=tally or counts(), engine=engine)


def test_rates_are_of_the_last_minute() -> None:
    meter = Meter(0.0, samples=1)
    for second in range(1, 101):
        measure(meter, float(second), At(output_tokens=0))
    for second in range(101, 201):
        progress = measure(meter, float(second), At(output_tokens=10 * (second - 100)))
    assert progress.output_tokens_per_s == pytest.approx(10)


def test_the_time_left_follows_the_tokens_in_the_engine() -> None:
    engine = At(output_tokens=1000, predicted_remaining_tokens=3000, running=50, waiting=40)
    progress = measure(Meter(0.0, samples=1), 10.0, engine, counts(done=10, output_tokens=500))
    assert progress.eta_s == pytest.approx(30)


def test_rows_not_yet_read_count_as_long_as_those_that_are_done() -> None:
    engine = At(output_tokens=1000, predicted_remaining_tokens=3000, running=50)
    progress = measure(Meter(0.0, samples=1), 10.0, engine, counts(done=10, output_tokens=500))
    assert progress.eta_s == pytest.approx((3000 + 40 * 50) / 100)


def test_the_samples_of_a_row_are_one_row() -> None:
    engine = At(output_tokens=1000, predicted_remaining_tokens=3000, running=180)
    progress = measure(Meter(0.0, samples=2), 10.0, engine, counts(done=10, output_tokens=500))
    assert progress.eta_s == pytest.approx(30)


def test_the_time_left_is_unknown_while_no_row_tells_of_those_to_come() -> None:
    engine = At(output_tokens=1000, predicted_remaining_tokens=3000, running=50)
    assert measure(Meter(0.0, samples=1), 10.0, engine).eta_s is None


def test_the_time_left_is_unknown_before_the_first_token() -> None:
    engine = At(predicted_remaining_tokens=50, running=100)
    assert measure(Meter(0.0, samples=1), 10.0, engine).eta_s is None


def test_the_time_left_is_unknown_at_first_while_no_row_is_done() -> None:
    engine = At(output_tokens=100, predicted_remaining_tokens=200, running=100)
    assert measure(Meter(0.0, samples=1), 10.0, engine).eta_s is None
    assert measure(Meter(0.0, samples=1), 100.0, engine).eta_s == pytest.approx(200)


def test_the_share_done_is_that_of_the_time() -> None:
    engine = At(output_tokens=100, predicted_remaining_tokens=300, running=99)
    progress = measure(Meter(0.0, samples=1), 10.0, engine, counts(done=1, output_tokens=1))
    assert progress.share == pytest.approx(0.25)


def test_the_share_done_never_goes_back() -> None:
    meter = Meter(0.0, samples=1)
    measure(meter, 10.0, At(output_tokens=100, running=99), counts(done=1, output_tokens=1))
    engine = At(output_tokens=110, predicted_remaining_tokens=1000, running=99)
    assert measure(meter, 11.0, engine, counts(done=1, output_tokens=1)).share == 1.0


def test_before_anything_is_known_of_the_tokens_the_time_left_is_the_plans() -> None:
    engine = At(planned_seconds=300.0, running=50)
    assert measure(Meter(0.0, samples=1), 10.0, engine).eta_s == pytest.approx(290)


def test_a_plan_whose_time_is_over_says_nothing() -> None:
    engine = At(planned_seconds=5.0, running=50)
    assert measure(Meter(0.0, samples=1), 10.0, engine).eta_s is None


def test_what_the_engine_has_learnt_goes_before_the_rows_that_are_done() -> None:
    engine = At(
        output_tokens=1000, predicted_remaining_tokens=3000, running=50, mean_output_tokens=80.0
    )
    progress = measure(Meter(0.0, samples=1), 10.0, engine, counts(done=10, output_tokens=100))
    assert progress.eta_s == pytest.approx((3000 + 40 * 80) / 100)
