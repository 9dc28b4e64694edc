"""The batch scripts start the job, pass its exit code on, and survive a requeue."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "sample_jobs" / "slurm.sbatch"


def run_script(
    folder: Path, srun: str, *arguments: str, script: Path = SCRIPT
) -> tuple[int, list[str]]:
    """The script's exit code, and the calls it made of `srun` and `scontrol`, which are stubs."""
    calls = folder / "calls"
    for name, ending in (("srun", srun), ("scontrol", "")):
        stub = folder / name
        stub.write_text(f'#!/bin/bash\necho "{name} $*" >> "{calls}"\n{ending}\n')
        stub.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(script), *arguments],
        env={**os.environ, "PATH": path, "SLURM_JOB_ID": "42"},
        capture_output=True,
        check=False,
    )
    return done.returncode, calls.read_text().splitlines()


@pytest.mark.parametrize("code", [0, 1, 3, 6])
def test_the_exit_code_is_the_run_s(tmp_path: Path, code: int) -> None:
    found, calls = run_script(tmp_path, f"exit {code}")
    assert found == code
    assert len(calls) == 1


def test_a_run_that_stopped_early_is_queued_again(tmp_path: Path) -> None:
    found, calls = run_script(tmp_path, "exit 75", "job.yaml")
    assert (found, calls) == (75, ["srun tightrun job.yaml --share", "scontrol requeue 42"])


def test_without_arguments_the_sample_job_is_run(tmp_path: Path) -> None:
    _, calls = run_script(tmp_path, "exit 0")
    assert calls == [
        "srun tightrun sample_jobs/dates.yaml --set output.shard_rows=250 --share",
    ]


def test_arguments_are_a_job_and_its_flags(tmp_path: Path) -> None:
    _, calls = run_script(tmp_path, "exit 0", "my job.yaml", "--quiet")
    assert calls == ["srun tightrun my job.yaml --quiet --share"]


def test_the_warning_comes_early_enough_and_the_job_may_be_requeued() -> None:
    lines = SCRIPT.read_text().splitlines()
    assert "#SBATCH --signal=USR2@180" in lines
    assert "#SBATCH --requeue" in lines
