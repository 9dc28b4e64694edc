"""Which passes go to the trace: the first 64, and those a quarter off plan."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.fake_engine import step
from tightrun.cli.pass_log import FIRST_PASSES, PassLog, is_off_plan
from tightrun.core import StepRecord, TraceSpan
from tightrun.io.output_place import OutputPlace
from tightrun.io.reports import ReportWriter, read_steps
from tightrun.io.trace import TraceWriter


def timed(iteration: int, elapsed_s: float, predicted_s: float) -> StepRecord:
    return replace(step(iteration), elapsed_s=elapsed_s, predicted_s=predicted_s)


def spans(iteration: int) -> list[TraceSpan]:
    return [TraceSpan(iteration, "h2d", "weights 0 0", iteration, iteration + 1, 4096)]


def traced(out: Path, records: Iterator[StepRecord]) -> list[int]:
    """The iterations in the trace, when these passes were told of."""
    place = OutputPlace.of(out)
    reports, trace = ReportWriter(place.report, 1), TraceWriter(place.trace, 1)
    log = PassLog(reports, trace)
    for record in records:
        log.step(record)
        log.spans(spans(record.iteration))
    reports.close()
    trace.close()
    events = json.loads(gzip.decompress(place.trace.read_bytes()))
    return [e["args"]["iteration"] for e in events if e["name"].startswith("pass ")]


def test_the_first_64_passes_are_traced(tmp_path: Path) -> None:
    assert FIRST_PASSES == 64
    assert traced(tmp_path, (step(n) for n in range(100))) == list(range(64))


def test_later_ones_are_traced_when_they_went_off_plan(tmp_path: Path) -> None:
    elapsed = {70: 1.3, 80: 0.7, 90: 1.2, 95: 0.8}
    records = (timed(n, elapsed.get(n, 1.0), 1.0) for n in range(100))
    assert traced(tmp_path, records) == [*range(64), 70, 80]


def test_every_pass_is_a_row_of_the_report(tmp_path: Path) -> None:
    traced(tmp_path, (step(n) for n in range(100)))
    assert read_steps(tmp_path).column("iteration").to_pylist() == list(range(100))


@pytest.mark.parametrize(
    ("elapsed_s", "predicted_s", "off"),
    [
        (1.25, 1.0, False),
        (1.26, 1.0, True),
        (0.75, 1.0, False),
        (0.74, 1.0, True),
        (1.0, 0.0, False),
    ],
)
def test_a_quarter_off_plan(elapsed_s: float, predicted_s: float, off: bool) -> None:
    assert is_off_plan(timed(1, elapsed_s, predicted_s)) is off
