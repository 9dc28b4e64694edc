"""Two runs on one output: the second is refused, leaves, or waits; what is dead is taken over."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.fake_engine import FakeEngine, factory
from tests.cli.fake_tightrun import start
from tests.cli.jobs import Listener, job_of, prompts, texts
from tests.io.machines import end_process, machine
from tightrun.cli import holding
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.holding import locks_at
from tightrun.cli.run import RunOptions, run_job
from tightrun.cli.stopping import Stop
from tightrun.cli.summary import Summary
from tightrun.core import Request
from tightrun.io.lock import LockedError, take
from tightrun.io.outputs import OutputPlace
from tightrun.io.owner import Here


class SlowRun:
    """A run in a thread that does not go on before it is let."""

    def __init__(self, job: dict[str, Any], here: Here | None = None) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()
        self.summary: Summary | None = None

        def before(_request: Request) -> None:
            self.began.set()
            assert self.go_on.wait(30)

        def work() -> None:
            engine = factory(FakeEngine(before=before))
            self.summary = run_job(job, view=Listener(), engine_factory=engine, here=here)

        self._thread = threading.Thread(target=work)
        self._thread.start()
        assert self.began.wait(30)

    def __enter__(self) -> SlowRun:
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()

    def end(self) -> None:
        self.go_on.set()
        self._thread.join()


@pytest.fixture(params=["local", "network"])
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Here:
    """A machine whose disk is its own, or one of many machines."""
    return machine(tmp_path / "node", mounted="ext4" if request.param == "local" else "nfs")


def run(
    job: dict[str, Any],
    here: Here,
    view: Listener | None = None,
    stop: Stop | None = None,
    **options: Any,
) -> Summary:
    return run_job(
        job,
        RunOptions(**options),
        view=view or Listener(),
        stop=stop,
        engine_factory=factory(FakeEngine()),
        here=here,
    )


def what_runs_write_once(folder: Path) -> dict[Path, bytes]:
    """All but the journal, which the first run may be about to write."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if path.parent.name != "journal"}


@pytest.mark.parametrize("resume", ["auto", "new"])
def test_a_second_run_is_refused_before_it_changes_anything(
    tmp_path: Path, here: Here, resume: str
) -> None:
    job = job_of(tmp_path, prompts(5))
    with SlowRun(job, here):
        before = what_runs_write_once(tmp_path)
        with pytest.raises(LockedError, match=r"held by .* node1.*--if-locked wait"):
            run(job, here, resume=resume)
        assert what_runs_write_once(tmp_path) == before
    assert texts(tmp_path / "out") == [f"SAY {number}" for number in range(5)]


def test_a_run_that_is_to_skip_says_one_line_and_ends_well(tmp_path: Path, here: Here) -> None:
    job, view = job_of(tmp_path, prompts(5)), Listener()
    with SlowRun(job, here):
        summary = run(job, here, view, if_locked="skip")
    assert summary.exit_code == ExitCode.FINISHED
    assert len(view.notes) == 1
    assert view.phases == []
    assert view.summary is None


def test_a_run_that_is_to_wait_says_so_and_then_comes(
    tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "_POLL_S", 0.01)
    job, view = job_of(tmp_path, prompts(5)), Listener()
    with SlowRun(job, here) as first:
        threading.Timer(0.1, first.go_on.set).start()
        run(job, here, view, if_locked="wait")
    assert [note.split(":")[0] for note in view.notes] == [
        f"waiting for {tmp_path / 'out'}",
        "this job is finished already; nothing was run",
    ]


def test_waiting_can_be_stopped(tmp_path: Path, here: Here) -> None:
    job, stop = job_of(tmp_path, prompts(5)), Stop()
    threading.Timer(0.1, stop.request, ("TERM was received", ExitCode.STOPPED)).start()
    with SlowRun(job, here):
        summary = run(job, here, stop=stop, if_locked="wait")
    assert summary.exit_code == ExitCode.STOPPED


def test_nothing_of_the_lock_is_left_after_a_run(tmp_path: Path, here: Here) -> None:
    run(job_of(tmp_path, prompts(5)), here)
    assert not (tmp_path / "out" / "_tightrun" / "live").exists()


def test_what_is_moved_aside_takes_no_lock_with_it(tmp_path: Path, here: Here) -> None:
    job = job_of(tmp_path, prompts(5))
    run(job, here)
    run(job, here, resume="new")
    assert list(tmp_path.rglob("live")) == []
    assert len(list(tmp_path.glob("out.*"))) == 1


def test_a_first_run_that_is_to_be_new_moves_nothing_aside(tmp_path: Path, here: Here) -> None:
    run(job_of(tmp_path, prompts(5)), here, resume="new")
    assert list(tmp_path.glob("out.*")) == []


def test_a_dead_run_is_taken_over_and_said(tmp_path: Path) -> None:
    job, view = job_of(tmp_path, prompts(5)), Listener()
    place, dead = OutputPlace.of(tmp_path / "out"), machine(tmp_path / "node", me=200)
    take(place.live, locks_at(place.live, dead), dead.me, target=place.target)
    end_process(tmp_path / "node", 200)
    run(job, machine(tmp_path / "node", me=100), view)
    assert any("died (process 200 on node1)" in note for note in view.notes)
    assert len(texts(tmp_path / "out")) == 5


def test_of_two_processes_at_once_one_runs_and_the_other_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job_of(tmp_path, prompts(30))))
    both = [start(tmp_path, "go", "job.yaml") for _ in range(2)]
    while all(process.poll() is None for process in both):
        time.sleep(0.01)
    (tmp_path / "go").touch()
    said = [process.communicate(timeout=60)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [ExitCode.FINISHED, ExitCode.LOCKED], said
    winner, refusal = both[codes.index(0)], said[codes.index(5)]
    assert f"process {winner.pid} on" in refusal
    assert texts(tmp_path / "out") == [f"SAY {number}" for number in range(30)]
