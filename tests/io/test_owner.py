"""Whether the owner of something lives, as far as can be told from here."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.io.machines import end_process, machine, run_process
from tightrun.io.owner import SILENT_S, Here, squeue


def test_a_process_of_this_machine_lives_as_long_as_it_is_there(tmp_path: Path) -> None:
    here = machine(tmp_path)
    assert here.patience_s(here.me) == math.inf
    end_process(tmp_path, here.me.pid)
    assert here.patience_s(here.me) == 0


def test_a_later_process_of_the_same_number_is_another(tmp_path: Path) -> None:
    here = machine(tmp_path)
    run_process(tmp_path, here.me.pid, ticks=here.me.began_ticks + 1)
    assert here.patience_s(here.me) == 0


def test_a_process_that_nobody_has_waited_for_is_dead(tmp_path: Path) -> None:
    here = machine(tmp_path)
    run_process(tmp_path, here.me.pid, here.me.began_ticks, state="Z")
    assert here.patience_s(here.me) == 0


def test_a_process_of_before_a_reboot_is_dead_after_missing_a_few_beats(tmp_path: Path) -> None:
    before = machine(tmp_path / "before", boot="boot-1").me
    patience_s = machine(tmp_path / "after", boot="boot-2").patience_s(before)
    assert 0 < patience_s < SILENT_S


def test_in_another_container_numbers_of_processes_mean_nothing(tmp_path: Path) -> None:
    other = machine(tmp_path / "other", pid_space="pid:[2]").me
    assert machine(tmp_path / "here").patience_s(other) == SILENT_S


def test_on_another_host_only_silence_tells(tmp_path: Path) -> None:
    other = machine(tmp_path / "other", host="node2", boot="boot-2").me
    assert machine(tmp_path / "here").patience_s(other) == SILENT_S


@pytest.mark.parametrize(
    ("states", "patience_s"),
    [("RUNNING\n", SILENT_S), ("", 0), ("PENDING\n", 0), ("FAILED\n", 0), (None, SILENT_S)],
)
def test_slurm_knows_which_jobs_have_ended(
    tmp_path: Path, states: str | None, patience_s: float
) -> None:
    job = {"SLURM_JOB_ID": "77"}
    other = machine(tmp_path / "other", host="node2", boot="boot-2", environment=job).me
    assert machine(tmp_path / "here", slurm=states).patience_s(other) == patience_s


def test_the_earlier_life_of_a_requeued_job_is_dead(tmp_path: Path) -> None:
    job = {"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "80"}
    first = machine(tmp_path / "first", host="node2", boot="boot-2", environment=job).me
    again = {**job, "SLURM_RESTART_COUNT": "1"}
    here = machine(tmp_path / "here", slurm="RUNNING\n", environment=again)
    assert first.slurm_job == "77_3"
    assert here.patience_s(first) == 0


def test_this_very_process_lives_and_one_that_has_ended_does_not() -> None:
    here = Here.of(os.environ)
    assert here.patience_s(here.me) == math.inf
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert here.patience_s(replace(here.me, pid=child.pid)) == 0


def test_without_slurm_there_is_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert squeue("1") is None


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo RUNNING", "RUNNING\n"),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", ""),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", None),
    ],
)
def test_a_job_that_slurm_has_forgotten_is_not_one_it_cannot_be_asked_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str | None
) -> None:
    (tmp_path / "squeue").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert squeue("1") == said
