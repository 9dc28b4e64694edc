"""One command and several processes: their rows, their deaths, and the one end they come to."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from tests.cli.fake_engine import FakeEngine, factory
from tests.cli.fake_tightrun import start
from tests.cli.jobs import Listener, job_of, prompts, texts
from tests.cli.test_sharing import claims, left_over, manifest, until
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.run import RunOptions, run_job
from tightrun.cli.stopping import Stop
from tightrun.cli.worker_places import WorkerPlace
from tightrun.cli.worker_process import Order
from tightrun.cli.workers import Workers
from tightrun.core import Request
from tightrun.io.job import load_job
from tightrun.io.owner import Here

ROWS, SHARD_ROWS = 80, 10
WHOLE = [f"SAY {number}" for number in range(ROWS)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    job = job_of(tmp_path, prompts(ROWS), output={"path": "out", "shard_rows": SHARD_ROWS})
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    return tmp_path / "out"


class Pretended:
    """In the place of a process: by its number, after which row it ends, and how."""

    started: ClassVar[list[int]] = []

    def __init__(self, number: int, order: Order, _place: WorkerPlace, _tell: object) -> None:
        self.started.append(number)
        self.progress: dict[str, Any] = {}
        self.number, self.end = number, "was killed"
        stop = Stop()
        last, self.code = {1: (25, -9), 2: (40, 0), 3: (ROWS, 0)}[number]

        def before(request: Request) -> None:
            if request.row_index == last:
                stop.request("killed", ExitCode.STOPPED)

        options = RunOptions(share=True)
        engine = factory(FakeEngine(before=before))
        summary = run_job(order.job, options, view=Listener(), stop=stop, engine_factory=engine)
        self.summary = summary.as_json()
        self.died = self.code < 0

    def join(self) -> None:
        pass


def test_those_that_died_are_replaced_when_the_others_have_gone(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(out.parent)
    monkeypatch.setattr("tightrun.cli.workers.WorkerProcess", Pretended)
    job, view = load_job(out.parent / "job.yaml"), Listener()
    order, place = Order(out.parent / "job.yaml", [], RunOptions()), WorkerPlace(2**30, (0,))
    summary = Workers(job, order, [place, place], view, Stop()).run(Here.of(os.environ))
    assert Pretended.started == [1, 2, 3]
    assert (summary.exit_code, summary.done, summary.earlier) == (ExitCode.FINISHED, ROWS, 0)
    assert texts(out) == WHOLE


def workers(out: Path, pace: float | str, *arguments: str) -> subprocess.Popen[str]:
    return start(out.parent, pace, "job.yaml", "--workers", "2", *arguments)


def both_at_work(out: Path) -> Callable[[], bool]:
    return lambda: len([shards for shards in claims(out).values() if shards]) == 2


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_one_that_is_killed_loses_no_row(out: Path) -> None:
    run = workers(out, "go")
    until(both_at_work(out), run)
    victim = next(iter(claims(out)))
    os.kill(victim, signal.SIGKILL)
    (out.parent / "go").touch()
    said = run.communicate(timeout=60)[1]
    assert run.returncode == ExitCode.FINISHED, said
    assert "was killed (SIGKILL); others take its rows" in said
    assert (texts(out), manifest(out).state, left_over(out)) == (WHOLE, "complete", [])


def test_a_signal_stops_all_of_them_and_the_same_command_goes_on(out: Path) -> None:
    run = workers(out, 0.05)
    until(both_at_work(out), run)
    pids = list(claims(out))
    run.send_signal(signal.SIGTERM)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == ExitCode.STOPPED, said
    assert all(gone(pid) for pid in pids)
    assert manifest(out).state == "stopped"
    again = workers(out, 0.0)
    assert again.communicate(timeout=60)[1].count("resuming:") == 1
    assert again.returncode == ExitCode.FINISHED
    assert texts(out) == WHOLE


def test_when_the_command_itself_is_killed_they_keep_what_they_have(out: Path) -> None:
    run = workers(out, 0.05)
    until(both_at_work(out), run)
    pids = list(claims(out))
    run.kill()
    run.communicate()
    while not all(gone(pid) for pid in pids):
        time.sleep(0.01)
    assert manifest(out).state == "stopped"
