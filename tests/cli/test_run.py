"""A run from input to output, with an engine that needs no model."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.fake_engine import FakeEngine, factory
from tests.cli.jobs import Listener, events, job_of, prompts, read, texts, write_rows
from tightrun.cli import generation
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.progress import Progress
from tightrun.cli.run import RunOptions, run_job
from tightrun.cli.stopping import Stop
from tightrun.cli.summary import Accuracy, Summary
from tightrun.core import Request, RowError, RunNote
from tightrun.io.inputs import InputError
from tightrun.io.outputs import OutputError
from tightrun.io.quantities import Tolerance
from tightrun.io.reports import read_runs, read_steps

BAD = RowError("internal", "the rule says no")


def run(job: dict[str, Any], engine: FakeEngine | None = None, **kwargs: Any) -> Summary:
    view = kwargs.pop("view", None) or Listener()
    return run_job(job, view=view, engine_factory=factory(engine or FakeEngine()), **kwargs)


def failing(*rows: int) -> FakeEngine:
    return FakeEngine(rule=lambda request: BAD if request.row_index in rows else "good")


def test_every_row_comes_out_once_and_in_order(tmp_path: Path) -> None:
    summary = run(job_of(tmp_path, prompts(250), output={"path": "out", "shard_rows": 100}))
    assert summary.exit_code == ExitCode.FINISHED
    assert texts(tmp_path / "out") == [f"SAY {number}" for number in range(250)]


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_phases_come_in_their_order(tmp_path: Path) -> None:
    view = Listener()
    run(job_of(tmp_path, prompts(3)), view=view)
    assert view.phases == ["scan", "load", "warm-up", "run", "seal"]


def test_the_summary_counts_rows_and_tokens(tmp_path: Path) -> None:
    summary = run(job_of(tmp_path, prompts(20)), failing(7))
    assert (summary.rows, summary.done, summary.good, summary.failed) == (20, 20, 19, 1)
    assert (summary.input_tokens, summary.output_tokens) == (2 * 19, 19)
    assert summary.errors == {"internal": 1}


def test_the_summary_is_shown_when_all_is_closed(tmp_path: Path) -> None:
    view = Listener()
    summary = run(job_of(tmp_path, prompts(3)), view=view)
    assert view.summary == summary
    assert view.broke_off == []


def test_a_failed_row_makes_the_exit_code_3(tmp_path: Path) -> None:
    assert run(job_of(tmp_path, prompts(20)), failing(7)).exit_code == ExitCode.ROWS_FAILED


@pytest.mark.parametrize(
    ("allowed", "code"),
    [
        (Tolerance(share=1.0), ExitCode.FINISHED),
        (Tolerance(share=0.1), ExitCode.FINISHED),
        (Tolerance(share=0.01), ExitCode.ROWS_FAILED),
        (Tolerance(count=1), ExitCode.ROWS_FAILED),
    ],
)
def test_failures_within_what_is_allowed_are_no_failure(
    tmp_path: Path, allowed: Tolerance, code: ExitCode
) -> None:
    options = RunOptions(allow_failures=allowed)
    assert run(job_of(tmp_path, prompts(20)), failing(7, 8), options=options).exit_code == code


def test_a_row_that_cannot_be_read_is_a_row_of_the_output(tmp_path: Path) -> None:
    job = job_of(tmp_path, prompts(5))
    lines = (tmp_path / "in.jsonl").read_text().splitlines()
    (tmp_path / "in.jsonl").write_text("\n".join([*lines[:2], "{broken", *lines[2:]]) + "\n")
    summary = run(job)
    assert summary.errors == {"bad_row": 1}
    assert texts(tmp_path / "out")[2] is None
    assert texts(tmp_path / "out")[3] == "SAY 2"


def test_a_job_whose_rows_all_cannot_be_read_ends(tmp_path: Path) -> None:
    job = job_of(tmp_path, [{"id": "a", "prompt": "x"}, {"id": "b"}], limits={"max_failed": "none"})
    engine = FakeEngine()
    summary = run(job, engine)
    assert (summary.done, summary.failed) == (2, 1)
    assert [request.id for request in engine.seen] == ["a"]


def test_too_many_failures_stop_the_run_and_name_the_commonest(tmp_path: Path) -> None:
    engine = FakeEngine(rule=lambda _request: BAD)
    summary = run(job_of(tmp_path, prompts(5000)), engine)
    assert summary.exit_code == ExitCode.TOO_MANY_FAILED
    assert summary.done < 5000
    assert summary.outcome == "more than 5% of the rows failed (limits.max_failed)"
    assert summary.errors == {"internal": summary.failed}
    assert summary.examples == {"internal": "row r0: the rule says no"}


def test_a_stop_keeps_what_is_finished_and_exits_75(tmp_path: Path) -> None:
    stop = Stop()

    def before(request: Request) -> None:
        if request.row_index == 30:
            stop.request("SIGTERM was received", ExitCode.STOPPED)

    view = Listener()
    job = job_of(tmp_path, prompts(5000))
    summary = run(job, FakeEngine(before=before), stop=stop, view=view)
    assert view.broke_off == ["run"]
    assert summary.exit_code == ExitCode.STOPPED
    assert summary.outcome == "SIGTERM was received"
    assert 30 <= summary.done < 5000
    assert read_runs(tmp_path / "out")[0].exit_code == ExitCode.STOPPED


def test_a_stop_that_comes_with_the_last_row_is_none(tmp_path: Path) -> None:
    stop = Stop()

    def before(request: Request) -> None:
        if request.row_index == 4:
            stop.request("late", ExitCode.STOPPED)

    summary = run(job_of(tmp_path, prompts(5)), FakeEngine(before=before), stop=stop)
    assert (summary.exit_code, summary.done) == (ExitCode.FINISHED, 5)


def test_a_stop_before_the_first_row_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    stop = Stop()
    stop.request("SIGTERM was received", ExitCode.STOPPED)
    job = job_of(tmp_path, prompts(5))
    assert run(job, stop=stop).exit_code == ExitCode.STOPPED
    assert run(job).exit_code == ExitCode.FINISHED


def test_the_time_limit_stops_the_run(tmp_path: Path) -> None:
    engine = FakeEngine(before=lambda _request: time.sleep(0.05))
    job = job_of(tmp_path, prompts(500), limits={"time": "0.5s"})
    summary = run(job, engine)
    assert summary.exit_code == ExitCode.STOPPED
    assert "limits.time" in summary.outcome


def test_an_error_of_the_engine_is_raised_and_its_traceback_kept(tmp_path: Path) -> None:
    def before(request: Request) -> None:
        if request.row_index == 3:
            raise RuntimeError("the kernel is gone")

    engine = FakeEngine(before=before)
    with pytest.raises(RuntimeError, match="the kernel is gone") as caught:
        run(job_of(tmp_path, prompts(10)), engine)
    last = events(tmp_path / "out")[-1]
    assert last["event"] == "error"
    assert "Traceback" in last["traceback"]
    assert "events.jsonl" in caught.value.__notes__[0]
    assert engine.closed


def test_an_error_of_the_reader_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "QUEUE_BYTES", 1)
    job = job_of(tmp_path, prompts(3000), input={"path": str(tmp_path / "*.jsonl")})
    write_rows(tmp_path / "later.jsonl", [{"id": "z", "prompt": "late"}])

    def before(request: Request) -> None:
        if request.row_index == 0:
            write_rows(tmp_path / "later.jsonl", [])

    with pytest.raises(InputError):
        run(job, FakeEngine(before=before))


def test_an_interrupt_in_python_keeps_what_is_finished(tmp_path: Path) -> None:
    def before(request: Request) -> None:
        if request.row_index == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job_of(tmp_path, prompts(5000)), FakeEngine(before=before))
    manifest = json.loads((tmp_path / "out" / "_tightrun" / "manifest.json").read_text())
    assert (manifest["state"], manifest["rows_done"]) == ("stopped", 30)


def test_limit_runs_the_first_rows_only(tmp_path: Path) -> None:
    summary = run(job_of(tmp_path, prompts(50)), options=RunOptions(limit=7))
    assert (summary.rows, summary.exit_code) == (7, ExitCode.FINISHED)
    assert texts(tmp_path / "out") == [f"SAY {number}" for number in range(7)]


def test_show_prompts_shows_that_many_with_their_place(tmp_path: Path) -> None:
    view = Listener()
    run(job_of(tmp_path, prompts(5)), view=view, options=RunOptions(show_prompts=2))
    assert view.prompts == [
        ("prompt of r0 (in.jsonl:1)", "say 0"),
        ("prompt of r1 (in.jsonl:2)", "say 1"),
    ]


def test_what_the_engine_notes_is_shown_and_kept_with_its_figures(tmp_path: Path) -> None:
    view = Listener()
    note = RunNote("slower", "slower than planned: the link", {"gap": 1.4})
    run(job_of(tmp_path, prompts(3)), FakeEngine(notes=(note,)), view=view)
    assert view.notes == [note.text]
    (told,) = [event for event in events(tmp_path / "out") if event["event"] == "slower"]
    assert (told["text"], told["gap"]) == (note.text, 1.4)


def test_accuracy_is_told_where_the_input_has_the_answers(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "one", "expected": " ONE\n"}]
    rows += [{"id": "b", "prompt": "two", "expected": "three"}]
    assert run(job_of(tmp_path, rows)).accuracy == Accuracy(right=1, rows=2)


def test_a_failed_row_is_not_right(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "x", "expected": ""}, {"id": "b", "prompt": "y", "expected": "Y"}]
    job = job_of(tmp_path, rows)
    assert run(job, failing(0, 1)).accuracy == Accuracy(right=0, rows=2)


def test_without_answers_there_is_no_accuracy(tmp_path: Path) -> None:
    assert run(job_of(tmp_path, prompts(2))).accuracy is None


def test_the_report_tables_tell_of_the_run(tmp_path: Path) -> None:
    run(job_of(tmp_path, prompts(20)))
    record = read_runs(tmp_path / "out")[0]
    assert (record.run, record.rows, record.failed, record.exit_code) == (1, 20, 0, 0)
    assert read_steps(tmp_path / "out").num_rows == 2


def test_a_finished_job_is_not_run_again(tmp_path: Path) -> None:
    job = job_of(tmp_path, prompts(5))
    first = run(job)
    engine = FakeEngine()
    second = run(job, engine)
    assert engine.seen == []
    assert (second.exit_code, second.done) == (first.exit_code, 5)


def test_a_finished_job_without_its_report_is_still_finished(tmp_path: Path) -> None:
    job = job_of(tmp_path, prompts(20))
    run(job, failing(7))
    next((tmp_path / "out").glob("_tightrun/report/runs/*")).unlink()
    summary = run(job)
    assert (summary.exit_code, summary.done, summary.failed) == (ExitCode.ROWS_FAILED, 20, 1)


def test_a_view_that_breaks_brings_the_error_and_not_a_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_progress: Progress | None) -> None:
        raise BrokenPipeError("nobody reads")

    view = Listener()
    monkeypatch.setattr(view, "tick", broken)
    engine = FakeEngine(before=lambda _request: time.sleep(0.01))
    with pytest.raises(BrokenPipeError, match="nobody reads"):
        run(job_of(tmp_path, prompts(2000)), engine, view=view)


def test_another_job_does_not_replace_finished_output(tmp_path: Path) -> None:
    run(job_of(tmp_path, prompts(5)))
    with pytest.raises(OutputError, match="--resume new"):
        run(job_of(tmp_path, prompts(6)))


def test_resume_new_moves_the_old_output_aside(tmp_path: Path) -> None:
    job = job_of(tmp_path, prompts(5))
    run(job)
    view = Listener()
    run(job, view=view, options=RunOptions(resume="new"))
    assert "was moved to" in view.notes[0]
    assert len(list(tmp_path.glob("out.*/data/*.parquet"))) == 1
    assert read(tmp_path / "out").num_rows == 5


def test_a_job_that_cannot_start_leaves_no_output(tmp_path: Path) -> None:
    job = job_of(tmp_path, [])
    with pytest.raises(InputError):
        run(job)
    assert not (tmp_path / "out").exists()


def test_prompts_and_texts_are_in_no_log(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "secretword one"}, {"id": "b", "prompt": "secretword two"}]
    run(job_of(tmp_path, rows), failing(1))
    log = (tmp_path / "out" / "_tightrun" / "events.jsonl").read_text()
    assert "secretword" not in log.lower()
