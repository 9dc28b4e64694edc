"""`tightrun retry`: failed rows again, in place."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.fake_engine import FakeEngine, factory
from tests.cli.fake_tightrun import start
from tests.cli.jobs import job_of, prompts, read, texts
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.main import main
from tightrun.cli.status import status_of
from tightrun.core import Request, RowError

ROWS = 60
WHOLE = [f"SAY {number}" for number in range(ROWS)]
CODES = {7: "oom", 23: "internal", 41: "context_length"}


def unlucky(request: Request) -> str | RowError:
    """Some rows fail."""
    code = CODES.get(request.row_index)
    return RowError(code, "not this time") if code else f"SAY {request.row_index}"


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    output = {"path": "out", "shard_rows": 10}
    job = job_of(tmp_path, prompts(ROWS), output=output, limits={"max_failed": "none"})
    Path("job.yaml").write_text(yaml.safe_dump(job))
    return job


def ran(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine, *arguments: str) -> int:
    monkeypatch.setattr("tightrun.cli.perform.start_engine", factory(engine))
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--quiet"])
    return int(ended.value.code or 0)


@pytest.mark.usefixtures("job")
def test_rows_with_the_named_errors_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran(monkeypatch, FakeEngine(unlucky), "job.yaml") == ExitCode.ROWS_FAILED
    engine = FakeEngine()
    assert ran(monkeypatch, engine, "retry", "job.yaml", "--errors", "oom") == ExitCode.ROWS_FAILED
    assert [request.row_index for request in engine.seen] == [7]
    assert ran(monkeypatch, engine, "retry", "job.yaml") == ExitCode.ROWS_FAILED
    everything = ["retry", "job.yaml", "--errors", "internal,context_length"]
    assert ran(monkeypatch, engine, *everything) == ExitCode.FINISHED
    assert [request.row_index for request in engine.seen] == [7, 23, 41]
    assert texts(Path("out")) == WHOLE
    attempts = read(Path("out")).column("attempt").to_pylist()
    assert {row: n for row, n in enumerate(attempts) if n} == {7: 1, 23: 1, 41: 1}
    assert (status_of(Path("out")).state, status_of(Path("out")).failed) == ("complete", 0)


@pytest.mark.usefixtures("job")
def test_where_no_row_has_failed_so_nothing_is_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(monkeypatch, FakeEngine(), "job.yaml")
    engine = FakeEngine()
    monkeypatch.setattr("tightrun.cli.perform.start_engine", factory(engine))
    with pytest.raises(SystemExit, match="0"):
        main(["retry", "job.yaml", "--errors", "oom"])
    assert "no row has failed with oom; nothing was run" in capsys.readouterr().err
    assert engine.seen == []


@pytest.mark.usefixtures("job")
@pytest.mark.parametrize(
    ("errors", "said"), [("omm", "'omm' is none of them"), (",", "none was named")]
)
def test_an_error_that_there_is_not_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    errors: str,
    said: str,
) -> None:
    asked = ["retry", "job.yaml", "--errors", errors]
    assert ran(monkeypatch, FakeEngine(), *asked) == ExitCode.USAGE
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.usefixtures("job")
def test_a_job_that_was_never_run_has_nothing_to_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran(monkeypatch, FakeEngine(), "retry", "job.yaml") == ExitCode.USAGE
    assert not Path("out").exists()


@pytest.mark.usefixtures("job")
def test_one_that_is_killed_in_the_middle_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job itself then does what is left of it."""
    ran(monkeypatch, FakeEngine(unlucky), "job.yaml")
    retry = start(Path.cwd(), "never", "retry", "job.yaml", "--errors", "oom,internal")
    seals = Path("out/_tightrun/sealed")
    while len(list(seals.glob("train-*"))) > ROWS // 10 - 2:
        assert retry.poll() is None, retry.communicate()[1]
        time.sleep(0.005)
    retry.kill()
    retry.communicate()
    assert len(read(Path("out"))) == ROWS
    engine = FakeEngine()
    assert ran(monkeypatch, engine, "job.yaml") == ExitCode.ROWS_FAILED
    assert {request.row_index for request in engine.seen} == {7, 23}
    assert [t for t in texts(Path("out")) if t] == [WHOLE[n] for n in range(ROWS) if n != 41]
