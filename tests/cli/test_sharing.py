"""Several runs on one output, as the tasks of an array are: each row once, whatever dies."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.fake_tightrun import start
from tests.cli.jobs import events, job_of, prompts, read, texts
from tightrun.cli.exit_codes import ExitCode
from tightrun.io.manifest import Manifest, read_manifest
from tightrun.io.outputs import OutputPlace

ROWS, SHARD_ROWS = 120, 10
WHOLE = [f"SAY {number}" for number in range(ROWS)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    job = job_of(tmp_path, prompts(ROWS), output={"path": "out", "shard_rows": SHARD_ROWS})
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    return tmp_path / "out"


def share(out: Path, pace: float | str, *arguments: str) -> subprocess.Popen[str]:
    return start(out.parent, pace, "job.yaml", "--share", *arguments)


def ended(*runs: subprocess.Popen[str]) -> list[int]:
    """Their exit codes; what they said is told when one of them failed."""
    said = [run.communicate(timeout=120)[1] for run in runs]
    codes = [run.returncode for run in runs]
    assert ExitCode.INTERNAL_ERROR not in codes, "\n".join(said)
    return codes


def until(so: Callable[[], bool], *runs: subprocess.Popen[str]) -> None:
    """Waits for something that comes while these runs are at work."""
    while not so():
        assert all(run.poll() is None for run in runs), [run.communicate()[1] for run in runs]
        time.sleep(0.01)


def sealed(out: Path) -> int:
    return len(list((out / "data").glob("train-*")))


def claims(out: Path) -> dict[int, list[int]]:
    """What each process has claimed, by its id."""
    found = {}
    for path in (out / "_tightrun" / "live").glob("run-*.json"):
        record = json.loads(path.read_bytes())
        found[record["owner"]["pid"]] = record["claims"]
    return found


def manifest(out: Path) -> Manifest:
    found = read_manifest(OutputPlace.of(out).manifest)
    assert found is not None
    return found


def left_over(out: Path) -> list[Path]:
    """What only runs at work have."""
    place = OutputPlace.of(out)
    return [*out.rglob(".*.tmp"), *place.journal.glob("*"), *place.live.glob("*")]


def named(out: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in events(out) if event["event"] == name]


def test_of_four_tasks_one_is_killed_and_the_others_do_its_rows(out: Path) -> None:
    runs = [share(out, 0.03) for _ in range(4)]
    until(lambda: len([c for c in claims(out).values() if c]) == 4 and sealed(out) >= 2, *runs)
    victim = next(run for run in runs if claims(out).get(run.pid))
    victim.kill()
    victim.communicate()
    rest = [run for run in runs if run is not victim]
    assert ended(*rest) == [ExitCode.FINISHED] * 3
    assert read(out).column("row_index").to_pylist() == list(range(ROWS))
    assert texts(out) == WHOLE
    assert manifest(out).state == "complete"
    assert sorted(e["first_row"] for e in named(out, "sealed")) == [*range(0, ROWS, SHARD_ROWS)]
    assert len(named(out, "complete")) == 1
    assert left_over(out) == []
