"""A job that was stopped, or died, is gone on with by the same command."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import pytest

from tests.cli.fake_engine import FakeEngine, factory
from tests.cli.jobs import Listener, events, job_of, prompts, texts
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.report import latest_summary
from tightrun.cli.run import RunOptions, run_job
from tightrun.cli.status import status_of
from tightrun.cli.stopping import Stop
from tightrun.cli.summary import Summary, closing_lines
from tightrun.core import Request, RowError, Written
from tightrun.io.outputs import OutputError, OutputPlace, WriteError
from tightrun.io.reports import read_runs, read_steps
from tightrun.io.shard import OpenShard

ROWS = 250
BAD = RowError("internal", "the rule says no")


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return job_of(tmp_path, prompts(ROWS), output={"path": "out", "shard_rows": 100})


def run(job: dict[str, Any], engine: FakeEngine | None = None, **kwargs: Any) -> Summary:
    view = kwargs.pop("view", None) or Listener()
    return run_job(job, view=view, engine_factory=factory(engine or FakeEngine()), **kwargs)


def stopped_at(job: dict[str, Any], row: int, **fields: Any) -> Summary:
    """A run that gets a signal when that row is reached; it is the last to finish."""
    stop = Stop()

    def before(request: Request) -> None:
        if request.row_index == row:
            stop.request("SIGTERM was received", ExitCode.STOPPED)

    return run(job, FakeEngine(before=before, **fields), stop=stop)


def died_at(job: dict[str, Any], row: int) -> None:
    """A run whose engine breaks at that row."""

    def before(request: Request) -> None:
        if request.row_index == row:
            raise RuntimeError("the kernel is gone")

    with pytest.raises(RuntimeError, match="the kernel is gone"):
        run(job, FakeEngine(before=before))


def rows_seen(engine: FakeEngine) -> list[int]:
    return [request.row_index for request in engine.seen]


def test_a_stopped_job_goes_on_with_the_rows_that_are_left(job: dict[str, Any]) -> None:
    assert stopped_at(job, 129).done == 130
    engine, view = FakeEngine(), Listener()
    summary = run(job, engine, view=view)
    assert view.facts[0] == "resuming: 130 of 250 rows done"
    assert rows_seen(engine) == list(range(130, ROWS))
    assert texts(Path("out")) == [f"SAY {number}" for number in range(ROWS)]
    assert (summary.exit_code, summary.done, summary.earlier) == (ExitCode.FINISHED, 250, 130)


def test_a_job_that_died_goes_on_as_well(job: dict[str, Any]) -> None:
    died_at(job, 40)
    engine = FakeEngine()
    assert run(job, engine).exit_code == ExitCode.FINISHED
    assert rows_seen(engine) == list(range(40, ROWS))


def test_a_run_that_has_nothing_to_go_on_from_says_nothing_of_it(job: dict[str, Any]) -> None:
    view = Listener()
    run(job, view=view)
    assert not any("resuming" in fact for fact in view.facts)


def test_the_summary_tells_tokens_of_its_own_run_and_rows_of_all(job: dict[str, Any]) -> None:
    stopped_at(job, 129)
    summary = run(job)
    assert (summary.input_tokens, summary.output_tokens) == (2 * 120, 2 * 120)
    assert dict(closing_lines(summary))["rows"] == "250 good, 0 failed (130 by earlier runs)"


def test_failed_rows_of_earlier_runs_are_failed_rows_and_not_paid_for_again(
    job: dict[str, Any],
) -> None:
    stopped_at(job, 129, rule=lambda r: BAD if r.row_index == 7 else "good")
    engine = FakeEngine()
    summary = run(job, engine)
    assert 7 not in rows_seen(engine)
    assert (summary.exit_code, summary.errors) == (ExitCode.ROWS_FAILED, {"internal": 1})


def test_a_job_that_was_stopped_by_failures_is_judged_anew(job: dict[str, Any]) -> None:
    first = run(job, FakeEngine(rule=lambda _request: BAD))
    assert first.exit_code == ExitCode.TOO_MANY_FAILED
    summary = run(job)
    assert summary.exit_code == ExitCode.ROWS_FAILED
    assert summary.done == ROWS
    assert summary.failed == first.failed


def test_what_rows_have_drawn_comes_back_with_their_requests(job: dict[str, Any]) -> None:
    part = Written(131, 0, 5, array("i", [7, 8, 9]))
    stopped_at(job, 129, written=lambda known: [part] if not known(131, 0, 5) else [])
    engine = FakeEngine(rule=lambda _request: "one two three four")
    summary = run(job, engine)
    assert {r.row_index: r.written for r in engine.seen if r.written} == {131: (part,)}
    # What the earlier run drew of it is no work of this one.
    assert summary.output_tokens == 120 * 4 - 3


def test_every_run_has_a_number_of_its_own_in_tables_and_events(job: dict[str, Any]) -> None:
    stopped_at(job, 29)
    died_at(job, 60)
    run(job)
    assert [(r.run, r.rows, r.exit_code) for r in read_runs("out")] == [(1, 30, 75), (3, 190, 0)]
    assert set(read_steps("out").column("run").to_pylist()) == {1, 2, 3}
    started = [event for event in events(Path("out")) if event["event"] == "started"]
    assert [(event["run"], event["done"]) for event in started] == [(1, 0), (2, 30), (3, 60)]


def test_status_counts_the_rows_of_all_runs(job: dict[str, Any]) -> None:
    stopped_at(job, 129)
    seen: list[int] = []

    def before(request: Request) -> None:
        if request.row_index == 130:
            seen.append(status_of(Path("out")).done)

    run(job, FakeEngine(before=before))
    assert seen == [130]
    assert (status_of(Path("out")).done, status_of(Path("out")).state) == (250, "complete")


def test_the_report_of_a_job_in_two_runs_has_all_its_rows(job: dict[str, Any]) -> None:
    stopped_at(job, 129)
    summary = run(job)
    again = latest_summary(OutputPlace.of("out"))
    assert (again.done, again.earlier, again.output_tokens) == (250, 130, summary.output_tokens)


def test_rows_that_are_all_finished_need_no_model(
    job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run before finished them, and could not write the last shard."""

    def full(_shard: object) -> None:
        raise OSError("No space left on device")

    def no_engine(*_asked: object) -> FakeEngine:
        raise AssertionError("a model was loaded for nothing")

    stopped_at(job, 199)
    with monkeypatch.context() as patched:
        patched.setattr(OpenShard, "seal", full)
        with pytest.raises(WriteError, match="No space left"):
            run(job)
    view = Listener()
    summary = run_job(job, view=view, engine_factory=no_engine)
    assert (summary.exit_code, summary.done, summary.earlier) == (ExitCode.FINISHED, ROWS, ROWS)
    assert view.phases == ["scan", "seal"]
    assert texts(Path("out")) == [f"SAY {number}" for number in range(ROWS)]
    assert status_of(Path("out")).state == "complete"


def test_a_limited_run_and_then_a_full_one(job: dict[str, Any]) -> None:
    assert run(job, options=RunOptions(limit=7)).rows == 7
    engine = FakeEngine()
    assert run(job, engine).done == ROWS
    assert rows_seen(engine) == list(range(7, ROWS))


def test_another_job_stops_with_the_difference(job: dict[str, Any]) -> None:
    stopped_at(job, 29)
    with pytest.raises(OutputError, match=r"sampling.temperature: 0.0 -> 0.5"):
        run({**job, "sampling": {"temperature": 0.5}})


def test_a_changed_job_keeps_what_it_still_has_when_it_is_forced(job: dict[str, Any]) -> None:
    stopped_at(job, 129)
    fewer = job_of(Path.cwd(), prompts(ROWS)[100:], output=job["output"])
    engine, view = FakeEngine(), Listener()
    summary = run(fewer, engine, view=view, options=RunOptions(resume="force"))
    assert view.facts[0] == "resuming: 30 of 150 rows done"
    assert "100 finished rows are left out: this job has none of their ids" in view.notes
    assert rows_seen(engine) == list(range(30, 150))
    assert (summary.done, summary.exit_code) == (150, ExitCode.FINISHED)
    assert texts(Path("out")) == [f"SAY {number}" for number in range(100, ROWS)]


def test_a_damaged_shard_is_noted_and_its_rows_run_again(job: dict[str, Any]) -> None:
    run(job)
    path = Path("out/data/train-00001.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)
    engine, view = FakeEngine(), Listener()
    summary = run(job, engine, view=view)
    assert any("train-00001.parquet is damaged in rows 100 to 199" in note for note in view.notes)
    assert rows_seen(engine) == list(range(100, 200))
    assert (summary.done, summary.exit_code) == (ROWS, ExitCode.FINISHED)


def test_a_line_of_the_events_that_a_crash_cut_short_is_no_obstacle(job: dict[str, Any]) -> None:
    stopped_at(job, 29)
    log = Path("out/_tightrun/events.jsonl")
    with log.open("ab") as file:
        file.write(b'{"time": "2026')
    run(job)
    lines = log.read_text().splitlines()
    assert json.loads(lines[-1])["event"] == "summary"
    assert [line for line in lines if not line.endswith("}")] == ['{"time": "2026']
    assert status_of(Path("out")).state == "complete"


def test_accuracy_is_of_the_rows_that_this_run_finished(tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "prompt": "x", "expected": "X"} for n in range(20)]
    job = job_of(tmp_path, rows)
    stopped_at(job, 4)
    accuracy = run(job).accuracy
    assert accuracy is not None
    assert (accuracy.right, accuracy.rows) == (15, 15)
