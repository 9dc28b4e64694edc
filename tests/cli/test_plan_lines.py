"""A run against its plan, as a person reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.fake_engine import FakeEngine, factory
from tests.cli.jobs import Listener, events, job_of, prompts
from tightrun.cli.plan_lines import now_against_plan, plan_lines, resource_lines
from tightrun.cli.progress import Progress
from tightrun.cli.report import latest_summary, report_text
from tightrun.cli.run import run_job
from tightrun.cli.summary import Summary, closing_lines
from tightrun.io.output_place import OutputPlace
from tightrun.io.reports import read_runs
from tightrun.policies.measured import Assumed, Comparison, Pace, Used

RUN = Comparison(
    planned=Pace(100.0, 8000.0, 450.0, 412.0),
    measured=Pace(103.0, 7900.0, 430.0, 398.0),
    passes=120,
    passes_planned_s=100.0,
    passes_s=103.0,
    resources=(
        Used("compute", 60.0, 66.0, 4.0e11, 3.6e11, 1.1),
        Used("memory", 20.0, 66.0, 48e9, 15e9),
        Used("h2d", 98.0, 101.0, 12.4e9, 12.0e9, 1.03),
    ),
    output=Assumed(128.0, 131.0),
)
SLOW = replace(
    RUN,
    measured=Pace(400.0, 7900.0, 110.0, 100.0),
    passes_s=400.0,
    resources=(Used("h2d", 98.0, 396.0, 12.4e9, 3.1e9, 4.0),),
)


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(folder: Path, comparison: Comparison = RUN) -> Summary:
    engine = FakeEngine(figures={"comparison": comparison})
    return run_job(job_of(folder, prompts(20)), view=Listener(), engine_factory=factory(engine))


def test_a_run_under_way_has_its_speed_beside_the_planned_one() -> None:
    progress = Progress(rows=9, done=1, failed=0, elapsed_s=9, output_tokens_per_s=398.2)
    assert now_against_plan(replace(progress, planned_output_tokens_per_s=412.0)) == (
        "plan 412 tok/s, now 398"
    )
    assert now_against_plan(progress) == ""


def test_a_plan_of_a_run_that_has_written_nothing_yet_is_compared_with_nothing() -> None:
    progress = Progress(rows=9, done=0, failed=0, elapsed_s=1, planned_output_tokens_per_s=412.0)
    assert now_against_plan(progress) == ""


def test_the_closing_lines_have_the_speed_and_every_rate_behind_it() -> None:
    assert plan_lines(RUN, whole=True) == [
        "planned 412, measured 398 tokens/s (-3 %)",
        "planned and measured: compute 400 and 360 GFLOP/s, to the device 12.4 and 12.0 GB/s",
    ]


def test_a_gap_is_explained_beneath_them() -> None:
    assert plan_lines(SLOW, whole=True)[-1] == (
        "slower than planned: the link to the device moved 3.1 GB/s where 12.4 was probed"
    )


def test_where_nothing_was_planned_or_measured_nothing_is_said() -> None:
    assert plan_lines(Comparison(), whole=True) == []
    assert resource_lines(Comparison()) == []


def test_the_report_has_each_resource_with_its_busy_time_and_correction() -> None:
    table = resource_lines(RUN)
    (link,) = [line for line in table if line.startswith("to the device")]
    assert " ".join(link.split()) == (
        "to the device 12.4 GB/s 12.0 GB/s 1 min 41 s 1 min 38 s x 1.03"
    )


def test_the_summary_and_the_report_tell_it(tmp_path: Path) -> None:
    summary = run(tmp_path)
    label, text = next(line for line in closing_lines(summary) if line[0] == "plan")
    assert (label, text[:12]) == ("plan", "planned 412,")
    text = report_text(OutputPlace.of(tmp_path / "out"))
    assert "x 1.03" in text
    assert "planned 412," in text


def test_of_a_finished_run_the_speed_is_that_of_the_summary(tmp_path: Path) -> None:
    summary = run(tmp_path)
    assert summary.comparison.measured.output_tokens_per_s == summary.output_tokens_per_s


def test_the_report_reads_back_what_the_run_has_written(tmp_path: Path) -> None:
    summary = run(tmp_path, SLOW)
    again = latest_summary(OutputPlace.of(tmp_path / "out"))
    assert again.comparison == summary.comparison


def test_the_runs_table_has_what_was_planned(tmp_path: Path) -> None:
    run(tmp_path)
    (record,) = read_runs(tmp_path / "out")
    assert record.planned_output_tokens_per_s == 412.0


def test_programs_get_comparison_and_explanation_with_the_summary_event(tmp_path: Path) -> None:
    run(tmp_path, replace(SLOW, planned=Pace()))
    (told,) = [event for event in events(tmp_path / "out") if event["event"] == "summary"]
    assert told["comparison"]["resources"][0]["measured_per_s"] == 3.1e9
    assert told["explanation"]["cause"] == "h2d"
