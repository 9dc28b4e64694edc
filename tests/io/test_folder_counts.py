"""Rows are counted from shards and journals, each row once."""

from __future__ import annotations

from pathlib import Path

from tests.io.resuming import ROWS, Run
from tightrun.io.folder_counts import FolderCounts
from tightrun.io.manifest import read_manifest
from tightrun.io.output_place import OutputPlace


def counted(out: Path) -> tuple[int, dict[str, int]]:
    place = OutputPlace.of(out)
    manifest = read_manifest(place.manifest)
    assert manifest is not None
    rows, errors = FolderCounts(place, manifest).count()
    return rows, dict(errors)


def test_rows_of_shards_and_of_journals_are_counted(tmp_path: Path) -> None:
    run = Run(tmp_path / "out")
    run.admit()
    run.finish([*range(10), 12, 17, 31])
    run.writer.flush()
    assert counted(tmp_path / "out") == (13, {"oom": 3})
    run.finish(row for row in run.asked if row not in {*range(10), 12, 17, 31})
    run.writer.close(final=True)
    assert counted(tmp_path / "out") == (ROWS, {"oom": 5})


def test_a_shard_that_ends_early_is_counted_once_and_goes_on(tmp_path: Path) -> None:
    Run(tmp_path / "out", limit=13).whole()
    assert counted(tmp_path / "out") == (13, {"oom": 2})
    more = Run(tmp_path / "out")
    more.admit()
    more.finish([13, 14])
    more.writer.flush()
    assert counted(tmp_path / "out") == (15, {"oom": 2})
    more.writer.close(final=False)


def test_what_has_changed_is_counted_anew(tmp_path: Path) -> None:
    run = Run(tmp_path / "out")
    run.admit()
    place = OutputPlace.of(tmp_path / "out")
    manifest = read_manifest(place.manifest)
    assert manifest is not None
    counts = FolderCounts(place, manifest)
    for done in (3, 8, 14):
        run.finish(range(counts.count()[0], done))
        run.writer.flush()
        assert counts.count()[0] == done
    run.writer.close(final=False)
