"""What is told of a run that streamed weights or context: trace, tables and closing lines."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.fake_engine import FakeEngine, factory, step
from tests.cli.jobs import Listener, events, job_of, prompts
from tightrun.cli.report import latest_summary
from tightrun.cli.run import RunOptions, run_job
from tightrun.cli.summary import Summary, closing_lines
from tightrun.core import StepRecord, TraceSpan
from tightrun.io.output_place import OutputPlace
from tightrun.io.reports import read_runs

STREAMED: dict[str, Any] = {
    "h2d_bytes_per_s": 11.8e9,
    "d2h_bytes_per_s": 4.2e8,
    "disk_bytes_per_s": 1.9e9,
    "idle_s": 0.25,
    "recompute_ratio": 0.312,
    "recompute_form": "tokens",
}


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(folder: Path, engine: FakeEngine, rows: int = 20, **kwargs: Any) -> Summary:
    job = job_of(folder, prompts(rows))
    return run_job(job, view=Listener(), engine_factory=factory(engine), **kwargs)


def sliced(iteration: int) -> tuple[StepRecord, list[TraceSpan]]:
    """A pass that sent one slice."""
    record = replace(step(iteration), started_s=iteration, elapsed_s=1.0)
    return record, [TraceSpan(iteration, "h2d", "weights 1 0", iteration, iteration + 0.5, 4096)]


def trace_of(out: Path) -> list[dict[str, Any]]:
    text = gzip.decompress((out / "_tightrun" / "trace.json.gz").read_bytes())
    found: list[dict[str, Any]] = json.loads(text)
    return found


def test_what_the_links_did_is_in_the_trace(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine(tell=sliced), rows=30)
    slices = [event for event in trace_of(tmp_path / "out") if event["name"] == "weights 1 0"]
    assert [event["ts"] for event in slices] == [0, 1e6, 2e6]


def test_an_engine_that_breaks_leaves_a_whole_trace(tmp_path: Path) -> None:
    def broken(iteration: int) -> tuple[StepRecord, list[TraceSpan]]:
        if iteration == 2:
            raise ZeroDivisionError
        return sliced(iteration)

    with pytest.raises(ZeroDivisionError):
        run(tmp_path, FakeEngine(tell=broken), rows=30)
    names = [event["name"] for event in trace_of(tmp_path / "out")]
    assert names.count("weights 1 0") == 2


def test_a_run_that_streams_nothing_has_no_trace(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine())
    assert not OutputPlace.of(tmp_path / "out").trace.exists()


def test_a_finished_job_keeps_its_trace_when_it_is_asked_for_again(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine(tell=sliced))
    before = OutputPlace.of(tmp_path / "out").trace.read_bytes()
    run(tmp_path, FakeEngine(tell=sliced))
    assert OutputPlace.of(tmp_path / "out").trace.read_bytes() == before


def test_a_new_run_has_a_trace_of_its_own(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine(tell=sliced), rows=30)
    run(tmp_path, FakeEngine(tell=sliced), rows=10, options=RunOptions(resume="new"))
    names = [event["name"] for event in trace_of(tmp_path / "out")]
    assert names.count("weights 1 0") == 1


def test_the_runs_table_has_the_rates_of_the_links(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine(figures=STREAMED))
    (record,) = read_runs(tmp_path / "out")
    assert (record.h2d_bytes_per_s, record.d2h_bytes_per_s) == (11.8e9, 4.2e8)
    assert (record.disk_bytes_per_s, record.flops_per_s, record.idle_s) == (1.9e9, 1.5e12, 0.25)


def test_the_summary_tells_links_idle_time_and_recompute(tmp_path: Path) -> None:
    summary = replace(run(tmp_path, FakeEngine(figures=STREAMED)), seconds=10.0)
    lines = dict(closing_lines(summary))
    assert lines["links"] == (
        "11.8 GB/s to the device, 0.42 GB/s from the device, 1.90 GB/s from disk, "
        "device idle 0.2 s (2.5 %)"
    )
    assert lines["context"] == "31.2 % of what lay off the device was recomputed from tokens"


def test_a_link_that_carried_nothing_is_not_told_of(tmp_path: Path) -> None:
    summary = run(tmp_path, FakeEngine(figures={"disk_bytes_per_s": 2e9}))
    line = dict(closing_lines(summary))["links"]
    assert line.startswith("2.00 GB/s from disk, device idle")


def test_nothing_is_told_of_links_where_nothing_was_streamed(tmp_path: Path) -> None:
    labels = [label for label, _ in closing_lines(run(tmp_path, FakeEngine()))]
    assert not {"links", "context"} & set(labels)


def test_the_report_tells_it_again(tmp_path: Path) -> None:
    summary = run(tmp_path, FakeEngine(figures=STREAMED))
    again = latest_summary(OutputPlace.of(tmp_path / "out"))
    assert closing_lines(again) == closing_lines(summary)


def test_programs_get_it_with_the_summary_event(tmp_path: Path) -> None:
    run(tmp_path, FakeEngine(figures=STREAMED))
    (told,) = [event for event in events(tmp_path / "out") if event["event"] == "summary"]
    assert {key: told[key] for key in STREAMED} == STREAMED
