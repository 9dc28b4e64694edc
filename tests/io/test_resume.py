"""A run goes on where an earlier one left off: every row is there once, and none is paid twice."""

from __future__ import annotations

import json
import random
import shutil
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.io.finished_rows import good_row, made_job, made_scan, write_all
from tests.io.resuming import ROWS, SHARD_ROWS, Run, killed, outcome, rows_in
from tightrun.core import Request, Written
from tightrun.io.earlier_run import next_run
from tightrun.io.manifest import read_manifest
from tightrun.io.output_place import OutputPlace

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "parquet": ("out", {"format": "parquet"}),
    "jsonl": ("out", {"format": "jsonl"}),
    "openai-batch": ("out", {"format": "openai-batch"}),
    "single file": ("out.jsonl", {"format": "openai-batch"}),
}


@pytest.fixture(scope="module", params=list(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def expected(way: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What a run without a break comes to."""
    name, output = WAYS[way]
    out = tmp_path_factory.mktemp("whole") / name
    Run(out, output=output).whole()
    return rows_in(out)


def files_in(out: Path) -> Iterator[Path]:
    return (path for path in out.parent.rglob("*") if path.is_file())


def said(run: Run) -> str:
    return "\n".join(run.writer.earlier.complaints)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(done=st.sets(st.integers(0, ROWS - 1)), seed=st.integers(0, 2**32))
def test_only_rows_that_were_not_finished_run_again_and_the_output_is_that_of_one_run(
    tmp_path_factory: pytest.TempPathFactory,
    way: str,
    expected: list[dict[str, Any]],
    done: set[int],
    seed: int,
) -> None:
    folder, (name, output) = tmp_path_factory.mktemp("run"), WAYS[way]
    (folder / "image").mkdir()
    order = sorted(done)
    random.Random(seed).shuffle(order)
    killed(folder / name, folder / "image" / name, order, output=output)
    run = Run(folder / "image" / name, output=output)
    assert run.writer.rows_done == len(done)
    assert run.whole() == [row for row in range(ROWS) if row not in done]
    assert rows_in(folder / "image" / name) == expected
    assert not list((folder / "image").rglob("journal"))


def test_rows_done_and_failed_are_counted_over_all_runs(tmp_path: Path) -> None:
    killed(tmp_path / "a", tmp_path / "out", range(25))
    run = Run(tmp_path / "out")
    assert (run.writer.rows_done, run.writer.error_counts) == (25, {"oom": 4})
    run.whole()
    manifest = read_manifest(tmp_path / "out" / "_tightrun" / "manifest.json")
    assert manifest is not None
    assert (manifest.rows_done, manifest.rows_failed, manifest.errors) == (35, 5, {"oom": 5})


def test_the_manifest_tells_of_every_run(tmp_path: Path) -> None:
    killed(tmp_path / "a", tmp_path / "b", range(5))
    place = OutputPlace.of(tmp_path / "b")
    second = Run(tmp_path / "b", number=next_run(place))
    second.writer.close(final=False)
    Run(tmp_path / "b", number=next_run(place)).whole()
    manifest = read_manifest(place.manifest)
    assert manifest is not None
    assert (manifest.run, manifest.state) == (3, "complete")
    assert [(run["run"], run["state"]) for run in manifest.earlier] == [(1, "died"), (2, "stopped")]


def test_a_shard_whose_last_row_finished_just_before_the_end_is_written_by_the_next_run(
    tmp_path: Path,
) -> None:
    """Killed between the last row of a shard and the seal: its journal has all of it."""
    killed(tmp_path / "a", tmp_path / "out", range(9))
    killed(tmp_path / "b", tmp_path / "full", range(10, 20), limit=10 + SHARD_ROWS)
    run = Run(tmp_path / "out")
    run.admit()
    run.finish([9])
    run.writer.flush()
    shutil.copytree(tmp_path / "out", tmp_path / "image")
    seal = OutputPlace.of(tmp_path / "image").seal(0)
    assert seal.exists()
    run.writer.close(final=False)


# --- fewer rows, and then more -------------------------------------------------------------------


@pytest.mark.parametrize("limit", [3, 10, 15])
def test_after_a_run_of_the_first_rows_a_full_run_goes_on(
    tmp_path: Path, way: str, expected: list[dict[str, Any]], limit: int
) -> None:
    name, output = WAYS[way]
    assert Run(tmp_path / name, limit=limit, output=output).whole() == list(range(limit))
    assert rows_in(tmp_path / name) == expected[:limit]
    assert Run(tmp_path / name, output=output).whole() == list(range(limit, ROWS))
    assert rows_in(tmp_path / name) == expected


def test_limits_that_grow_and_shrink_pay_for_no_row_twice(
    tmp_path: Path, way: str, expected: list[dict[str, Any]]
) -> None:
    name, output = WAYS[way]
    asked: list[int] = []
    for limit in (4, 17, 12, 17, 23, 5, ROWS, 8):
        asked += Run(tmp_path / name, limit=limit, output=output).whole()
    assert sorted(asked) == list(range(ROWS))
    assert rows_in(tmp_path / name) == expected


def test_a_run_of_fewer_rows_leaves_what_a_larger_one_began(tmp_path: Path) -> None:
    killed(tmp_path / "a", tmp_path / "out", [1, 12, 22, 24])
    assert Run(tmp_path / "out", limit=5).whole() == [0, 2, 3, 4]
    left = set(range(ROWS)) - {0, 1, 2, 3, 4, 12, 22, 24}
    assert Run(tmp_path / "out").whole() == sorted(left)


# --- what cannot be trusted ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_shard_is_said_moved_away_and_run_again(
    tmp_path: Path, way: str, expected: list[dict[str, Any]], seed: int
) -> None:
    name, output = WAYS[way]
    Run(tmp_path / name, output=output).whole()
    place = OutputPlace.of(tmp_path / name)
    suffix = ".parquet" if way == "parquet" else ".jsonl"
    path = place.target if place.single_file else place.shard(1, suffix)
    content = bytearray(path.read_bytes())
    content[random.Random(seed).randrange(len(content))] ^= 1 << seed
    path.write_bytes(content)
    run = Run(tmp_path / name, output=output)
    assert "damaged" in said(run)
    asked = run.whole()
    assert len(asked) in (SHARD_ROWS, ROWS % SHARD_ROWS)
    assert rows_in(tmp_path / name) == expected
    assert Run(tmp_path / name, output=output).writer.already_complete


def test_a_shard_that_is_gone_runs_again(tmp_path: Path) -> None:
    Run(tmp_path).whole()
    (tmp_path / "data" / "train-00001.parquet").unlink()
    run = Run(tmp_path)
    assert said(run) == "train-00001.parquet is not there any more; its rows run again"
    assert run.whole() == list(range(10, 20))


def test_a_shard_that_was_cut_short_runs_again(tmp_path: Path) -> None:
    Run(tmp_path, output={"format": "jsonl"}).whole()
    path = tmp_path / "data" / "train-00001.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    run = Run(tmp_path, output={"format": "jsonl"})
    assert "train-00001.jsonl is damaged in rows 10 to 19; it was moved to" in said(run)
    assert run.whole() == list(range(10, 20))
    assert (tmp_path / "_tightrun" / "damaged" / "train-00001.jsonl").exists()


def test_a_damaged_seal_is_no_seal(tmp_path: Path) -> None:
    Run(tmp_path).whole()
    seal = OutputPlace.of(tmp_path).seal(2)
    content = bytearray(seal.read_bytes())
    content[40] ^= 4
    seal.write_bytes(content)
    run = Run(tmp_path)
    assert "train-00002.bin, a shard's seal, is damaged" in said(run)
    assert run.whole() == list(range(20, 30))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_is_damaged_the_output_is_right_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A byte of any file of shards, seals and journals changes between two runs."""
    folder = tmp_path_factory.mktemp("run")
    killed(folder / "a", folder / "out", [*range(12), 15, 22, 31])
    place = OutputPlace.of(folder / "out")
    files = [*place.data.iterdir(), *place.seals.iterdir(), *place.journal.iterdir()]
    path = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(path.read_bytes())
    if content:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    run = Run(folder / "out")
    run.whole()
    columns = ("custom_id", "text", "error", "question", "number", "attempt")
    found = [{name: row[name] for name in columns} for row in rows_in(folder / "out")]
    assert found == [
        {
            "custom_id": f"id-{row}",
            "text": None if (bad := outcome(row).error) else f"output {row}.0",
            "error": {"code": bad.code, "message": bad.message} if bad else None,
            "question": f"question {row}",
            "number": row,
            "attempt": 0,
        }
        for row in range(ROWS)
    ]


def test_a_torn_end_of_the_journal_is_said(tmp_path: Path) -> None:
    killed(tmp_path / "a", tmp_path / "out", range(5))
    journal = OutputPlace.of(tmp_path / "out").row_journal(0)
    journal.write_bytes(journal.read_bytes()[:-3])
    run = Run(tmp_path / "out")
    assert said(run).startswith("rows-00000.bin: a crash cut the last record short; its ")
    assert run.whole() == [4, *range(5, ROWS)]


def test_what_was_found_is_in_the_events(tmp_path: Path) -> None:
    Run(tmp_path).whole()
    (tmp_path / "data" / "train-00001.parquet").unlink()
    Run(tmp_path).whole()
    lines = (tmp_path / "_tightrun" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line).get("text") for line in lines if '"found"' in line] == [
        "train-00001.parquet is not there any more; its rows run again"
    ]


def test_a_journal_without_its_shards_kept_columns_gets_them_again(tmp_path: Path) -> None:
    """They are read again from the input, so a damaged spool costs nothing."""
    killed(tmp_path / "a", tmp_path / "out", range(5))
    OutputPlace.of(tmp_path / "out").column_spool(0).unlink()
    assert Run(tmp_path / "out").whole() == list(range(5, ROWS))
    assert [row["number"] for row in rows_in(tmp_path / "out")] == list(range(ROWS))


# --- rows that are begun -------------------------------------------------------------------------


def part(row: int, *tokens: int, sample: int = 0, first: int = 0) -> Written:
    return Written(row, sample, 9, array("i", tokens), first)


def test_what_rows_have_drawn_comes_with_their_requests_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.admit()
    drawn = [part(2, 7, 8), part(2, 5, sample=1), part(4, 1)]
    run.writer.keep_unfinished(lambda known: drawn if not known(2, 0, 9) else [])
    run.writer.flush()
    run.finish([4])
    run.writer.close(final=False)
    again = Run(tmp_path)
    [chunk] = [c for c in _chunks() if c.start == 0]
    requests = [item for item in again.writer.admit(chunk) if isinstance(item, Request)]
    assert {r.row_index: r.written for r in requests if r.written} == {2: tuple(drawn[:2])}
    again.writer.close(final=False)
    third = Run(tmp_path)
    requests = [item for item in third.writer.admit(chunk) if isinstance(item, Request)]
    assert {r.row_index: r.written for r in requests if r.written} == {2: tuple(drawn[:2])}
    third.writer.close(final=False)


def test_what_a_stop_leaves_is_asked_for_once_more_at_the_end(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.admit()
    run.writer.keep_unfinished(lambda known: [part(3, 1, 2)] if not known(3, 0, 9) else [])
    run.writer.close(final=False)
    assert list(Run(tmp_path).writer.earlier.begun) == [3]


def _chunks() -> Any:
    from tests.io.finished_rows import made_chunks

    return made_chunks(made_scan(ROWS), SHARD_ROWS)


def test_a_finished_job_that_is_whole_is_left_as_it_is(tmp_path: Path, way: str) -> None:
    name, output = WAYS[way]
    Run(tmp_path / name, output=output).whole()
    before = {path: path.stat().st_mtime_ns for path in files_in(tmp_path / name)}
    assert Run(tmp_path / name, output=output).writer.already_complete
    assert {path: path.stat().st_mtime_ns for path in files_in(tmp_path / name)} == before


def test_journal_and_seals_are_their_owner_s_alone(tmp_path: Path) -> None:
    killed(tmp_path / "a", tmp_path / "out", range(12))
    place = OutputPlace.of(tmp_path / "a")
    for path in (*place.journal.iterdir(), *place.seals.iterdir()):
        assert path.stat().st_mode & 0o777 == 0o600
    for folder in (place.journal, place.seals):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_row_once_done_is_not_done_again_however_often_a_run_is_killed(tmp_path: Path) -> None:
    """Each run finishes three more rows and is gone."""
    asked: list[int] = []
    for step in range(ROWS // 3 + 1):
        run = Run(tmp_path / str(step))
        run.admit()
        rows = run.asked[:3]
        run.finish(rows)
        asked += rows
        run.writer.flush()
        shutil.copytree(tmp_path / str(step), tmp_path / str(step + 1))
        run.writer.close(final=False)
    assert sorted(asked) == list(range(ROWS))
    whole = write_all(
        made_job(tmp_path / "whole", output={"shard_rows": SHARD_ROWS}),
        [outcome(row) for row in range(ROWS)],
    )
    assert rows_in(tmp_path / str(ROWS // 3 + 1)) == rows_in(whole.place.target)
    assert good_row(0) == outcome(0)
