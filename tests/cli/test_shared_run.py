"""What a run that shares its output does beside others, seen from within one process."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.fake_engine import FakeEngine, factory
from tests.cli.jobs import Listener, job_of, prompts, texts
from tests.io.machines import machine
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.report import latest_summary
from tightrun.cli.run import RunOptions, run_job
from tightrun.cli.stopping import Stop
from tightrun.cli.summary import Summary, headline
from tightrun.core import Request, RowError, Written
from tightrun.io.lock import LockedError
from tightrun.io.manifest import read_manifest
from tightrun.io.outputs import OutputError, OutputPlace
from tightrun.io.owner import Here

ROWS = 60
WHOLE = [f"SAY {number}" for number in range(ROWS)]


class Machine:
    """One machine; each run on it is a process of its own."""

    def __init__(self, folder: Path, mounted: str) -> None:
        self._folder, self._mounted = folder, mounted
        self._processes = 0

    def process(self) -> Here:
        self._processes += 1
        pid = 100 + self._processes
        return machine(self._folder / "node", mounted=self._mounted, me=pid)


@pytest.fixture(params=["ext4", "nfs"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, request.param)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return job_of(tmp_path, prompts(ROWS), output={"path": "out", "shard_rows": 10})


def run(
    job: dict[str, Any],
    node: Machine,
    engine: FakeEngine | None = None,
    *,
    view: Listener | None = None,
    stop: Stop | None = None,
    share: bool = True,
    **options: Any,
) -> Summary:
    return run_job(
        job,
        RunOptions(share=share, **options),
        view=view or Listener(),
        stop=stop,
        engine_factory=factory(engine or FakeEngine()),
        here=node.process(),
    )


class Held:
    """A run in a thread that has begun `row` and waits there until it is let."""

    def __init__(self, job: dict[str, Any], node: Machine, row: int, **options: Any) -> None:
        self.began, self.go_on, self.stop = threading.Event(), threading.Event(), Stop()
        self.engine = FakeEngine(before=self._before, **options)
        self.summary: Summary | None = None
        self._row = row

        def work() -> None:
            self.summary = run(job, node, self.engine, stop=self.stop)

        self._thread = threading.Thread(target=work)
        self._thread.start()
        assert self.began.wait(30)

    def _before(self, request: Request) -> None:
        if request.row_index == self._row:
            self.began.set()
            assert self.go_on.wait(30)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()

    def end(self) -> Summary:
        self.go_on.set()
        self._thread.join()
        assert self.summary is not None
        return self.summary


def stopping(stop: Stop, at: int) -> Callable[[Request], None]:
    """Stops a run while it is at that row, which is its last."""

    def before(request: Request) -> None:
        if request.row_index == at:
            stop.request("SIGTERM was received", ExitCode.STOPPED)

    return before


def state(out: str = "out") -> str:
    manifest = read_manifest(OutputPlace.of(out).manifest)
    assert manifest is not None
    return manifest.state


def rows_seen(engine: FakeEngine) -> list[int]:
    return [request.row_index for request in engine.seen]


def test_alone_it_does_all_rows_in_order(job: dict[str, Any], node: Machine) -> None:
    engine = FakeEngine()
    assert run(job, node, engine).exit_code == ExitCode.FINISHED
    assert rows_seen(engine) == list(range(ROWS))
    assert (texts(Path("out")), state()) == (WHOLE, "complete")


def test_another_takes_what_is_left_and_leaves_and_the_last_one_concludes(
    job: dict[str, Any], node: Machine
) -> None:
    engine, view = FakeEngine(), Listener()
    with Held(job, node, row=13) as first:
        summary = run(job, node, engine, view=view)
        assert state() == "running"
        last = first.end()
    assert sorted(rows_seen(engine)) == [*range(20, ROWS)]
    assert (summary.exit_code, summary.left) == (ExitCode.FINISHED, True)
    assert headline(summary) == "Done here: the runs that share the output see to the rest."
    assert (last.exit_code, last.done, last.earlier) == (ExitCode.FINISHED, ROWS, 40)
    assert (texts(Path("out")), state()) == (WHOLE, "complete")
    together = latest_summary(OutputPlace.of("out"))
    assert (together.done, together.earlier, together.shared) == (ROWS, 0, True)
    assert together.output_tokens == summary.output_tokens + last.output_tokens


def test_one_that_finds_nothing_free_loads_no_model(job: dict[str, Any], node: Machine) -> None:
    def no_engine(*_asked: object) -> FakeEngine:
        raise AssertionError("a model was loaded for nothing")

    few = {**job, "output": {"path": "out", "shard_rows": ROWS}}
    with Held(few, node, row=3):
        options, here = RunOptions(share=True), node.process()
        assert run_job(few, options, view=Listener(), engine_factory=no_engine, here=here).left
    assert texts(Path("out")) == WHOLE


def test_one_that_comes_when_all_is_done_ends_well(job: dict[str, Any], node: Machine) -> None:
    bad = FakeEngine(rule=lambda r: RowError("oom", "no") if r.row_index == 7 else "good")
    assert run(job, node, bad).exit_code == ExitCode.ROWS_FAILED
    assert run(job, node).exit_code == ExitCode.FINISHED


def test_the_one_that_concludes_tells_of_rows_that_failed_elsewhere(
    job: dict[str, Any], node: Machine
) -> None:
    bad = FakeEngine(rule=lambda r: RowError("oom", "no") if r.row_index == 37 else "good")
    with Held(job, node, row=13) as first:
        assert run(job, node, bad).exit_code == ExitCode.FINISHED
        assert first.end().exit_code == ExitCode.ROWS_FAILED


def test_a_stopped_run_leaves_its_rows_to_those_at_work(job: dict[str, Any], node: Machine) -> None:
    with Held(job, node, row=13) as first:
        stop = Stop()
        second = FakeEngine(before=stopping(stop, at=35))
        assert run(job, node, second, stop=stop).exit_code == ExitCode.STOPPED
        assert state() == "running"
        begun = rows_seen(second)
        assert begun[-1] == 35
        first.end()
        assert not set(begun) & set(rows_seen(first.engine))
    assert (texts(Path("out")), state()) == (WHOLE, "complete")


def test_when_all_are_stopped_the_output_is(job: dict[str, Any], node: Machine) -> None:
    with Held(job, node, row=13) as first:
        first.stop.request("SIGTERM was received", ExitCode.STOPPED)
        assert first.end().exit_code == ExitCode.STOPPED
    assert state() == "stopped"
    assert run(job, node, share=False).done == ROWS
    assert texts(Path("out")) == WHOLE


def test_a_run_alone_is_refused_while_others_share(job: dict[str, Any], node: Machine) -> None:
    with Held(job, node, row=13), pytest.raises(LockedError):
        run(job, node, share=False)


def test_another_job_is_refused_while_others_are_at_work(
    job: dict[str, Any], node: Machine
) -> None:
    other = {**job, "sampling": {"temperature": 0.5}}
    with Held(job, node, row=13):
        for resume in ("auto", "force"):
            with pytest.raises(OutputError, match=r"at work.*sampling.temperature: 0.0 -> 0.5"):
                run(other, node, resume=resume)
        with pytest.raises(OutputError, match="rows: 60 -> 20"):
            run(job, node, limit=20)
    assert texts(Path("out")) == WHOLE


def test_a_changed_job_that_all_force_is_taken_over_once(
    job: dict[str, Any], node: Machine
) -> None:
    run(job, node, share=False, limit=30)
    fewer = job_of(Path.cwd(), prompts(ROWS)[10:], output=job["output"])
    stop = Stop()
    first, second = FakeEngine(before=stopping(stop, at=24)), FakeEngine()
    assert run(fewer, node, first, stop=stop, resume="force").exit_code == ExitCode.STOPPED
    assert run(fewer, node, second, resume="force").exit_code == ExitCode.FINISHED
    assert run(fewer, node, resume="force").exit_code == ExitCode.FINISHED
    assert sorted(rows_seen(first) + rows_seen(second)) == [*range(20, ROWS - 10)]
    assert texts(Path("out")) == WHOLE[10:]


def test_what_a_stopped_run_has_drawn_goes_to_whoever_takes_its_shard(
    job: dict[str, Any], node: Machine
) -> None:
    part, stop = Written(14, 0, 5, array("i", [7, 8, 9])), Stop()
    first = FakeEngine(
        before=stopping(stop, at=13), written=lambda known: [] if known(14, 0, 5) else [part]
    )
    run(job, node, first, stop=stop)
    second = FakeEngine()
    run(job, node, second)
    assert {r.row_index: r.written for r in second.seen if r.written} == {14: (part,)}
    assert list(OutputPlace.of("out").bookkeeping.glob("journal/*")) == []
