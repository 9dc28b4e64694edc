"""The batch script requeues what was stopped early, and only that."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "sample_jobs" / "slurm.sbatch"


def run_script(folder: Path, srun: str, *arguments: str) -> tuple[int, list[str]]:
    """The script's exit code, and the calls it made with `srun` and `scontrol` being stubs."""
    calls = folder / "calls"
    bodies = {"srun": srun, "scontrol": ""}
    for name, body in bodies.items():
        stub = folder / name
        stub.write_text(f'#!/bin/bash\necho "{name} $*" >> "{calls}"\n{body}\n')
        stub.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        env={**os.environ, "PATH": path, "SLURM_JOB_ID": "4711"},
        capture_output=True,
        check=False,
    )
    return done.returncode, calls.read_text().splitlines()


def test_a_job_that_was_stopped_early_is_requeued(tmp_path: Path) -> None:
    code, calls = run_script(tmp_path, "exit 75")
    assert code == 75
    assert calls[1:] == ["scontrol requeue 4711"]


@pytest.mark.parametrize("code", [0, 1, 3, 6])
def test_a_job_that_ended_is_not_requeued_and_keeps_its_exit_code(
    tmp_path: Path, code: int
) -> None:
    found, calls = run_script(tmp_path, f"exit {code}")
    assert found == code
    assert len(calls) == 1


def test_a_cancelled_job_is_not_requeued(tmp_path: Path) -> None:
    code, calls = run_script(tmp_path, 'kill -TERM "$PPID"; exit 75')
    assert code == 75
    assert len(calls) == 1


def test_without_arguments_the_sample_job_is_run(tmp_path: Path) -> None:
    _, calls = run_script(tmp_path, "exit 0")
    assert calls == ["srun tightrun sample_jobs/dates.yaml"]


def test_arguments_are_a_job_and_its_flags(tmp_path: Path) -> None:
    _, calls = run_script(tmp_path, "exit 0", "my job.yaml", "--quiet")
    assert calls == ["srun tightrun my job.yaml --quiet"]


def test_the_warning_comes_early_enough_and_the_job_may_be_requeued() -> None:
    lines = SCRIPT.read_text().splitlines()
    assert "#SBATCH --signal=USR2@180" in lines
    assert "#SBATCH --requeue" in lines
