"""The status of an output whose run has not ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.fake_engine import FakeEngine, factory
from tests.cli.jobs import Listener, job_of, prompts
from tests.io.machines import end_process, machine
from tightrun.cli.holding import locks_at
from tightrun.cli.run import run_job
from tightrun.cli.status import status_lines, status_of
from tightrun.io.events import EventLog
from tightrun.io.lock import take
from tightrun.io.outputs import OutputError, OutputPlace


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The output of a run, with a manifest that says that it still runs."""
    view = Listener()
    run_job(job_of(tmp_path, prompts(20)), view=view, engine_factory=factory(FakeEngine()))
    change(tmp_path / "out", state="running", ended=None)
    return tmp_path / "out"


def change(out: Path, **values: object) -> None:
    path = out / "_tightrun" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_living_run_is_as_far_as_its_folder_says(tmp_path: Path, out: Path) -> None:
    here, live = machine(tmp_path / "node"), OutputPlace.of(out).live
    take(live, locks_at(live, here), here.me, target=out)
    change(out, rows_done=0)
    EventLog(out / "_tightrun").event("progress", done=8, failed=1, eta_s=12.5)
    status = status_of(out, here)
    assert (status.state, status.done, status.failed, status.eta_s) == ("running", 20, 0, 12.5)


def test_runs_that_share_are_told_together(tmp_path: Path, out: Path) -> None:
    live, log = OutputPlace.of(out).live, EventLog(out / "_tightrun")
    for run, speed, eta_s in ((1, 300.0, 20.0), (2, 100.0, 60.0), (3, 50.0, 1.0)):
        here = machine(tmp_path / "node", me=100 + run)
        take(live, locks_at(live, here), here.me, target=out, shared=True)
        log.event("progress", run=run, output_tokens_per_s=speed, eta_s=eta_s)
    end_process(tmp_path / "node", 103)
    status = status_of(out, machine(tmp_path / "node", me=100))
    assert (status.live, status.output_tokens_per_s, status.eta_s) == (2, 400.0, 15.0)
    assert dict(status_lines(status))["state"] == "running, 2 processes at work"


def test_a_living_run_tells_its_speed_beside_the_planned_one(tmp_path: Path, out: Path) -> None:
    here, live = machine(tmp_path / "node"), OutputPlace.of(out).live
    take(live, locks_at(live, here), here.me, target=out)
    speeds = {"output_tokens_per_s": 398.2, "planned_output_tokens_per_s": 412.0}
    EventLog(out / "_tightrun").event("progress", done=8, failed=1, **speeds)
    assert dict(status_lines(status_of(out, here)))["speed"] == "398 tok/s out, planned 412"


def test_a_run_whose_process_is_gone_has_died(tmp_path: Path, out: Path) -> None:
    here, live = machine(tmp_path / "node"), OutputPlace.of(out).live
    take(live, locks_at(live, here), here.me, target=out)
    end_process(tmp_path / "node", here.me.pid)
    assert status_of(out, here).state == "died"


def test_a_run_on_another_host_is_believed(tmp_path: Path, out: Path) -> None:
    there, live = machine(tmp_path / "node", host="elsewhere"), OutputPlace.of(out).live
    take(live, locks_at(live, there), there.me, target=out)
    assert status_of(out, machine(tmp_path / "here", boot="boot-2")).state == "running"


def test_a_manifest_that_cannot_be_read_is_said_to_be_so(out: Path) -> None:
    (out / "_tightrun" / "manifest.json").write_text("{")
    with pytest.raises(OutputError, match="manifest"):
        status_of(out)
