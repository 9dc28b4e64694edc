"""tightrun's own program takes its figure from the job's own record, and refuses a bad one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.rivals.tightrun_run import RunFailedError, job_file, measured, run_phase_seconds
from tightrun.core import RunRecord
from tightrun.io.job import load_job


def record(failed: int) -> RunRecord:
    return RunRecord(1, "", "", 0, 8, failed, 20, 64, 2.0, 32.0, 0.0, "", 0.5, peak_cpu_bytes=7)


def test_the_figure_is_that_of_the_runs_table() -> None:
    assert measured(record(failed=0)) == (64, 2.0, 7)


def test_a_run_with_failed_rows_is_no_measurement() -> None:
    with pytest.raises(RunFailedError, match="2 of 8 rows failed"):
        measured(record(failed=2))


def test_the_outside_clock_runs_between_the_lines_of_the_run_phase() -> None:
    def line(event: str, phase: str) -> str:
        return json.dumps({"event": event, "phase": phase})

    lines = [
        (1.0, line("phase", "load")),
        (2.0, "a library speaks"),
        (3.0, line("phase", "run")),
        (4.0, line("progress", "run")),
        (5.5, line("phase_end", "run")),
        (9.0, line("phase", "seal")),
    ]
    assert run_phase_seconds(lines) == 2.5


def test_the_job_file_is_a_valid_one(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "prompts.jsonl").write_text("")
    found = job_file(tmp_path / "model", tmp_path / "prompts.jsonl", tmp_path / "out", 64)
    job = load_job(found)
    assert job.sampling.max_tokens == 64
    assert job.sampling.ignore_eos
    assert job.model.dtype == "auto"
