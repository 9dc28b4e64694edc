"""Rows that failed are done again, and come to stand where they were; the others stay."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.io.faulty_disk import FaultyDisk, PowerCut
from tests.io.finished_rows import good_row
from tests.io.resuming import ROWS, SHARD_ROWS, Run, killed, rows_in
from tightrun.io.manifest import read_manifest
from tightrun.io.output_place import OutputError, OutputPlace
from tightrun.io.outputs import WriteError

FAILED = [3, 10, 17, 24, 31]
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "parquet": ("out", {"format": "parquet"}),
    "jsonl": ("out", {"format": "jsonl"}),
    "single file": ("out.jsonl", {"format": "openai-batch"}),
}
MOMENTS = 12


class Retried(Run):
    """A run that does failed rows again, with more luck."""

    def __init__(self, out: Path, **options: Any) -> None:
        super().__init__(out, **{"retry": ("oom", "internal"), **options})

    def finish(self, rows: Iterable[int]) -> None:
        for row in rows:
            self.writer.put(replace(good_row(row), attempt=self.attempts.get(row, 0)))


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return WAYS[str(request.param)]


def failed(rows: list[dict[str, Any]]) -> int:
    """Rows of an output that have an error, in whatever format."""
    return sum("oom" in str(row) for row in rows)


def whole(out: Path, output: dict[str, Any]) -> list[dict[str, Any]]:
    out.parent.mkdir(parents=True, exist_ok=True)
    Run(out, output=output).whole()
    return rows_in(out)


def test_only_rows_that_failed_run_again_and_all_others_stay(
    tmp_path: Path, way: tuple[str, dict[str, Any]]
) -> None:
    name, output = way
    before = whole(tmp_path / name, output)
    assert Retried(tmp_path / name, output=output).whole() == FAILED
    after = rows_in(tmp_path / name)
    assert (len(after), failed(before), failed(after)) == (ROWS, len(FAILED), 0)
    kept = set(range(ROWS)) - set(FAILED)
    assert [before[row] for row in kept] == [after[row] for row in kept]
    manifest = read_manifest(OutputPlace.of(tmp_path / name).manifest)
    assert manifest is not None
    assert (manifest.state, manifest.rows_done, manifest.rows_failed) == ("complete", ROWS, 0)


def test_rows_say_which_attempt_they_are_of_and_a_crash_does_not_forget_it(tmp_path: Path) -> None:
    whole(tmp_path / "out", {})
    killed(tmp_path / "out", tmp_path / "image", [10], retry=["oom"])
    run = Run(tmp_path / "image")
    run.admit()
    assert (run.asked, run.attempts) == ([3, 17, 24, 31], {3: 1, 17: 1, 24: 1, 31: 1})
    run.finish(run.asked)
    run.writer.close(final=True)
    again = Retried(tmp_path / "image")
    again.whole()
    assert again.attempts == dict.fromkeys(FAILED, 2)


def test_shards_without_such_errors_are_left_alone(tmp_path: Path) -> None:
    whole(tmp_path / "out", {})
    assert Retried(tmp_path / "out", retry=["internal"]).writer.already_complete


def test_failed_rows_of_an_unfinished_job_run_again_too(tmp_path: Path) -> None:
    killed(tmp_path / "out", tmp_path / "image", [*range(12), 24, 25])
    left = set(range(ROWS)) - {*range(12), 24, 25} | {3, 10, 24}
    assert Retried(tmp_path / "image").whole() == sorted(left)


def test_a_job_that_was_limited_stays_so(tmp_path: Path) -> None:
    Run(tmp_path / "out", limit=13).whole()
    assert Retried(tmp_path / "out").whole() == [3, 10]
    assert len(rows_in(tmp_path / "out")) == 13
    assert Run(tmp_path / "out").whole() == list(range(13, ROWS))


@pytest.mark.parametrize("name", ["out", "out.jsonl"])
def test_a_crash_at_any_moment_loses_nothing(tmp_path: Path, name: str) -> None:
    output = {"format": "jsonl"}
    before = whole(tmp_path / "template" / name, output)
    disk = FaultyDisk()
    Retried(copied(tmp_path, name, "counting"), disk=disk, output=output).whole()
    for moment in random.Random(name).sample(range(disk.count), MOMENTS):
        out = copied(tmp_path, name, str(moment))
        with pytest.raises((PowerCut, OutputError, WriteError)):
            Retried(out, disk=FaultyDisk(moment, dies=True), output=output).whole()
        run = Run(out, output=output)
        assert set(run.whole()) <= set(FAILED)
        after = rows_in(out)
        assert [row["row_index"] for row in after] == list(range(ROWS))
        kept = set(range(ROWS)) - set(FAILED)
        assert [before[row] for row in kept] == [after[row] for row in kept]


def copied(folder: Path, name: str, to: str) -> Path:
    shutil.copytree(folder / "template", folder / to)
    return folder / to / name


def test_a_shard_has_its_old_rows_until_it_has_all_of_the_new(tmp_path: Path) -> None:
    whole(tmp_path / "out", {})
    run = Retried(tmp_path / "out")
    run.admit()
    assert len(rows_in(tmp_path / "out")) == ROWS
    assert len(list((tmp_path / "out" / "data").iterdir())) == -(-ROWS // SHARD_ROWS)
    run.writer.close(final=False)
