"""An output at a URL: all of it gets there, and another machine goes on from what did."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fsspec
import orjson
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.cli.fake_engine import FakeEngine
from tests.cli.jobs import Listener, job_of, prompts
from tests.cli.stores import OUT, Runner, names, rows, runner
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.output_at import copies_folder
from tightrun.cli.report import print_report
from tightrun.cli.status import status_of
from tightrun.cli.stopping import Stop
from tightrun.core import Request, RowError
from tightrun.io import patience, publishing
from tightrun.io.lock import LockedError
from tightrun.io.outputs import OutputError
from tightrun.io.owner import Owner
from tightrun.io.patience import RemoteError

__all__ = ["runner"]

ROWS = 25
EXPECTED = [(f"r{number}", f"SAY {number}") for number in range(ROWS)]


def job_at(folder: Path, url: str = OUT, **output: Any) -> dict[str, Any]:
    return job_of(folder, prompts(ROWS), output={"path": url, "shard_rows": 10, **output})


def stopping_at(count: int, stop: Stop) -> FakeEngine:
    """An engine that is stopped when so many rows have finished."""
    seen: list[Request] = []

    def before(request: Request) -> None:
        seen.append(request)
        if len(seen) > count:
            stop.request("test", ExitCode.STOPPED)

    return FakeEngine(before=before)


def test_all_of_the_output_gets_there(runner: Runner, tmp_path: Path) -> None:
    view = Listener()
    summary = runner.run("here", job_at(tmp_path), view=view)
    assert (summary.exit_code, summary.output) == (0, OUT)
    assert rows() == EXPECTED
    assert view.phases[-1] == "publish"
    shards = {f"data/train-{number:05d}.parquet" for number in range(3)}
    assert names() >= {"README.md", "_tightrun/manifest.json", "_tightrun/events.jsonl", *shards}
    assert not [name for name in names() if "journal" in name or "owner" in name]
    manifest = orjson.loads(fsspec.filesystem("memory").cat("/bucket/out/_tightrun/manifest.json"))
    assert manifest["state"] == "complete"


def test_a_finished_job_is_known_on_another_machine(runner: Runner, tmp_path: Path) -> None:
    runner.run("here", job_at(tmp_path))
    engine = FakeEngine()
    assert runner.run("there", job_at(tmp_path), engine).done == ROWS
    assert not engine.seen
    assert rows() == EXPECTED


def test_a_stopped_job_goes_on_on_another_machine(runner: Runner, tmp_path: Path) -> None:
    stop = Stop()
    summary = runner.run("here", job_at(tmp_path), stopping_at(14, stop), stop=stop)
    assert summary.exit_code == ExitCode.STOPPED
    assert 14 <= summary.done < ROWS
    engine = FakeEngine()
    assert runner.run("there", job_at(tmp_path), engine).done == ROWS
    assert len(engine.seen) == ROWS - summary.done
    assert rows() == EXPECTED
    assert not [name for name in names() if "journal" in name]


def test_a_machine_learns_what_others_have_done_since(runner: Runner, tmp_path: Path) -> None:
    stop = Stop()
    runner.run("here", job_at(tmp_path), stopping_at(4, stop), stop=stop)
    runner.run("there", job_at(tmp_path), limit=15)
    engine = FakeEngine()
    assert runner.run("here", job_at(tmp_path), engine).done == ROWS
    assert {request.row_index for request in engine.seen} == set(range(15, ROWS))
    assert rows() == EXPECTED


def test_a_copy_without_its_rows_gets_them_again(runner: Runner, tmp_path: Path) -> None:
    runner.run("here", job_at(tmp_path))
    shutil.rmtree(runner.copy("here") / "data")
    engine = FakeEngine()
    runner.run("here", job_at(tmp_path), engine)
    assert not engine.seen


def test_a_damaged_shard_in_the_store_is_run_again(runner: Runner, tmp_path: Path) -> None:
    runner.run("here", job_at(tmp_path))
    path = "/bucket/out/data/train-00001.parquet"
    memory = fsspec.filesystem("memory")
    damaged = bytearray(memory.cat(path))
    damaged[len(damaged) // 2] ^= 1
    memory.pipe_file(path, bytes(damaged))
    engine = FakeEngine()
    runner.run("there", job_at(tmp_path), engine)
    assert {request.row_index for request in engine.seen} == set(range(10, 20))
    assert rows() == EXPECTED


def test_a_single_file_gets_there_whole(runner: Runner, tmp_path: Path) -> None:
    url = "memory://bucket/some/results.jsonl"

    def rule(request: Request) -> str | RowError:
        return RowError("internal", "no") if request.row_index == 3 else "yes"

    job = job_at(tmp_path, url, format="jsonl")
    assert runner.run("here", job, FakeEngine(rule=rule)).failed == 1
    memory = fsspec.filesystem("memory")
    lines = memory.cat("/bucket/some/results.jsonl").splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == [name for name, _ in EXPECTED]
    assert len(memory.cat("/bucket/some/results_errors.jsonl").splitlines()) == 1
    assert memory.find("/bucket/some/results.tightrun/data") == []
    engine = FakeEngine()
    assert runner.run("there", job, engine).done == ROWS
    assert not engine.seen


def test_a_stopped_single_file_goes_on_on_another_machine(runner: Runner, tmp_path: Path) -> None:
    job = job_at(tmp_path, "memory://bucket/some/results.jsonl", format="jsonl")
    stop = Stop()
    summary = runner.run("here", job, stopping_at(14, stop), stop=stop)
    engine = FakeEngine()
    assert runner.run("there", job, engine).done == ROWS
    assert len(engine.seen) == ROWS - summary.done
    memory = fsspec.filesystem("memory")
    assert len(memory.cat("/bucket/some/results.jsonl").splitlines()) == ROWS
    assert memory.find("/bucket/some/results.tightrun/data") == []


def test_failed_rows_are_retried_in_place_from_another_machine(
    runner: Runner, tmp_path: Path
) -> None:
    def rule(request: Request) -> str | RowError:
        return RowError("internal", "no") if request.row_index == 12 else "yes"

    job = job_at(tmp_path)
    assert runner.run("here", job, FakeEngine(rule=rule)).failed == 1
    engine = FakeEngine()
    summary = runner.run("there", job, engine, retry=frozenset({"internal"}))
    assert (summary.failed, len(engine.seen)) == (0, 1)
    assert rows()[12] == EXPECTED[12]


def test_new_moves_what_was_there_aside(runner: Runner, tmp_path: Path) -> None:
    runner.run("here", job_at(tmp_path))
    view, engine = Listener(), FakeEngine()
    runner.run("here", job_at(tmp_path), engine, view=view, resume="new")
    assert len(engine.seen) == ROWS
    (note,) = (note for note in view.notes if note.startswith(f"{OUT} was moved to"))
    assert rows(note.rpartition(" ")[2]) == rows() == EXPECTED


def test_rows_of_nobody_are_not_written_over(runner: Runner, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/out/data/mine.parquet", b"mine")
    with pytest.raises(OutputError, match="no manifest says which job"):
        runner.run("here", job_at(tmp_path))
    assert names() == {"data/mine.parquet"}


def test_the_output_of_another_job_is_refused(runner: Runner, tmp_path: Path) -> None:
    runner.run("here", job_at(tmp_path))
    other = job_at(tmp_path) | {"sampling": {"max_tokens": 3}}
    with pytest.raises(OutputError, match=r"sampling\.max_tokens"):
        runner.run("there", other)
    assert rows() == EXPECTED


def owned(silent_s: float) -> None:
    """A run on another machine holds the output, and gave its last sign of life so long ago."""
    owner = Owner(host="elsewhere", boot="x", pid_space="y", pid=7, began_ticks=1)
    beat = time.time() - silent_s
    said = {"owner": asdict(owner), "since": "2026-01-01T00:00:00Z", "beat": beat}
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/out/_tightrun/owner.json", orjson.dumps(said))


def test_two_machines_do_not_write_at_once(runner: Runner, tmp_path: Path) -> None:
    owned(silent_s=10)
    with pytest.raises(LockedError, match="process 7 on elsewhere"):
        runner.run("here", job_at(tmp_path))
    skipped = runner.run("here", job_at(tmp_path), if_locked="skip")
    assert (skipped.exit_code, skipped.rows) == (0, 0)
    owned(silent_s=3600)
    assert runner.run("here", job_at(tmp_path)).done == ROWS


@pytest.mark.parametrize("url", [OUT, "memory://bucket/some/results.jsonl"])
def test_a_machine_that_dies_at_any_moment_leaves_what_another_goes_on_from(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    job = job_at(tmp_path, url, format="jsonl" if url.endswith("jsonl") else "parquet")
    moments: list[dict[str, bytes]] = []
    with monkeypatch.context() as patch:
        for name in ("pipe_file", "put_file", "rm_file"):
            patch.setattr(MemoryFileSystem, name, remembering(name, moments))
        stop = Stop()
        runner.run("first", job, stopping_at(12, stop), stop=stop)
        runner.run("first", job)
    whole = output()
    assert len(moments) > 10
    for number, moment in enumerate(moments):
        MemoryFileSystem.store.clear()
        for path, data in moment.items():
            fsspec.filesystem("memory").pipe_file(path, data)
        assert runner.run(f"machine{number}", job).exit_code == 0
        assert output().keys() == whole.keys()
        if url == OUT:
            assert rows() == EXPECTED
        else:
            assert output() == whole


def output() -> dict[str, bytes]:
    """What is in the store without the bookkeeping."""
    return {path: data for path, data in files().items() if "tightrun/" not in path}


def files() -> dict[str, bytes]:
    """All that is in the store."""
    memory = fsspec.filesystem("memory")
    return {path: memory.cat(path) for path in memory.find("/bucket")}


def remembering(name: str, moments: list[dict[str, bytes]]) -> Any:
    """A method of the store after which all that is in it is kept."""
    real = getattr(MemoryFileSystem, name)

    def call(fs: Any, *args: Any, **kwargs: Any) -> None:
        real(fs, *args, **kwargs)
        moments.append(files())

    return call


def test_processes_do_not_share_a_url(runner: Runner, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="through a folder"):
        runner.run("here", job_at(tmp_path), share=True)


class Failing:
    """A store that takes no file for so many tries."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tries: int, ending: str = ".parquet"):
        self.left = tries
        real = MemoryFileSystem.put_file

        def put_file(fs: Any, local: str, path: str, *args: Any, **kwargs: Any) -> None:
            if path.endswith(ending) and self.left > 0:
                self.left -= 1
                raise OSError("the network is gone")
            real(fs, local, path, *args, **kwargs)

        monkeypatch.setattr(MemoryFileSystem, "put_file", put_file)
        monkeypatch.setattr(patience, "WAITS_S", (0.0,))
        monkeypatch.setattr(publishing, "_TRY_AGAIN_S", 0.01)


def test_a_network_that_comes_back_costs_nothing(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Failing(monkeypatch, tries=5)
    view = Listener()
    engine = FakeEngine(before=lambda _request: time.sleep(0.01))
    assert runner.run("here", job_at(tmp_path), engine, view=view).exit_code == 0
    assert rows() == EXPECTED


def test_a_network_that_stays_away_costs_no_row(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(monkeypatch, tries=10**6)
    with pytest.raises(RemoteError, match="the network is gone"):
        runner.run("here", job_at(tmp_path))
    failing.left = 0
    engine = FakeEngine()
    assert runner.run("here", job_at(tmp_path), engine).exit_code == 0
    assert not engine.seen
    assert rows() == EXPECTED


def test_a_store_that_refuses_is_told_before_anything_is_run(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise PermissionError("Forbidden")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    engine = FakeEngine()
    with pytest.raises(OutputError, match="cannot be written to"):
        runner.run("here", job_at(tmp_path), engine)
    assert not engine.seen


def test_a_url_that_can_only_be_read_is_refused(runner: Runner, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="can be read only"):
        runner.run("here", job_at(tmp_path, "https://example.org/out"))


def test_status_and_report_are_told_of_a_url(
    runner: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = Stop()
    summary = runner.run("here", job_at(tmp_path), stopping_at(14, stop), stop=stop)
    for machine in ("here", "there"):
        runner.use(machine)
        status = status_of(OUT)
        assert (status.state, status.output) == ("stopped", OUT)
        assert status.done == summary.done
    runner.run("here", job_at(tmp_path))
    runner.use("there")
    print_report(OUT)
    assert f"{ROWS} good" in capsys.readouterr().out
    assert not copies_folder({"XDG_STATE_HOME": str(tmp_path / "there")}).exists()


def test_status_tells_of_a_run_on_another_machine(runner: Runner, tmp_path: Path) -> None:
    stop = Stop()
    runner.run("here", job_at(tmp_path), stopping_at(14, stop), stop=stop)
    owned(silent_s=10)
    assert status_of(OUT).live == 1


def test_status_of_a_url_where_nothing_is(runner: Runner) -> None:
    runner.use("here")
    with pytest.raises(OutputError, match="no manifest is there"):
        status_of("memory://bucket/nothing")
