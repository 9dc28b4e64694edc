"""What lies where the output is to go: nothing of it is ever overwritten or mixed with ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.io.finished_rows import good_row, made_chunks, made_job, made_scan, write_all
from tightrun.io.durable import Disk
from tightrun.io.earlier_run import claim, next_run
from tightrun.io.manifest import read_manifest
from tightrun.io.output_place import OutputError, OutputPlace
from tightrun.io.outputs import OutputWriter, RunInfo


def opened(path: Path, rows: int = 12, **sections: Any) -> OutputWriter:
    job = made_job(path, **sections)
    return OutputWriter(job, made_scan(rows), run_info=RunInfo(), n=1)


def complete(path: Path, rows: int = 12, **sections: Any) -> None:
    write_all(made_job(path, **sections), [good_row(i) for i in range(rows)])


def stopped(path: Path, finished: int) -> None:
    writer = opened(path)
    for chunk in made_chunks(made_scan(12), 10):
        writer.admit(chunk)
    for i in range(finished):
        writer.put(good_row(i))
    writer.close(final=False)


def test_a_folder_with_other_things_in_it_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").touch()
    complete(tmp_path)
    assert (tmp_path / "job.yaml").exists()


def test_a_spool_of_the_input_is_not_in_the_way(tmp_path: Path) -> None:
    place = OutputPlace.of(tmp_path)
    place.input_spool.mkdir(parents=True)
    (place.input_spool / "stdin.jsonl").touch()
    assert claim(place) == []


@pytest.mark.parametrize("name", ["data/train-00000.parquet", "data/notes.txt", "README.md"])
def test_data_that_is_not_ours_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=f"{name} is there already.*--resume new"):
        opened(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["results.jsonl", "results_errors.jsonl"])
def test_a_file_that_is_not_ours_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=f"{name} is there already"):
        opened(tmp_path / "results.jsonl", output={"format": "jsonl"})


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="out is a file and the output is to be a folder"):
        opened(tmp_path / "out")


def test_a_folder_where_the_file_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(OutputError, match="is a folder and the output is to be a file"):
        opened(tmp_path / "out.jsonl", output={"format": "jsonl"})


@pytest.mark.parametrize("path", ["out", "out.jsonl"])
def test_the_same_job_again_is_already_complete(tmp_path: Path, path: str) -> None:
    output = {"format": "jsonl"}
    complete(tmp_path / path, output=output)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    writer = opened(tmp_path / path, output=output)
    writer.close(final=True)
    assert writer.already_complete
    assert (writer.rows_done, writer.rows_failed) == (12, 0)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_another_batch_size_or_machine_is_the_same_job(tmp_path: Path) -> None:
    complete(tmp_path / "out")
    policy = {"name": "sync", "batch_size": 3}
    assert opened(tmp_path / "out", policy=policy, hardware="cpu").already_complete


def test_another_job_is_refused_with_what_differs(tmp_path: Path) -> None:
    complete(tmp_path)
    with pytest.raises(OutputError, match=r"another job \(sampling.temperature: 0.0 -> 0.5\)"):
        opened(tmp_path, sampling={"temperature": 0.5})


def test_an_unfinished_run_of_another_job_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    stopped(tmp_path, 3)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(OutputError, match=r"another job \(sampling.temperature: 0.0 -> 0.5\)"):
        opened(tmp_path, sampling={"temperature": 0.5})
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("output", "difference"),
    [
        ({"shard_rows": 5}, "output.shard_rows: 10 -> 5"),
        ({"format": "jsonl"}, "output.format: parquet -> jsonl"),
    ],
)
def test_rows_that_lie_otherwise_are_refused_with_what_differs(
    tmp_path: Path, output: dict[str, Any], difference: str
) -> None:
    stopped(tmp_path, 3)
    with pytest.raises(OutputError, match=difference):
        opened(tmp_path, output=output)


def test_columns_that_are_no_more_the_same_are_refused_with_what_differs(tmp_path: Path) -> None:
    stopped(tmp_path, 3)
    fewer = made_scan(12, pa.schema([("question", pa.string())]))
    with pytest.raises(OutputError, match=r"output.columns.number: int64 -> None"):
        OutputWriter(made_job(tmp_path), fewer, run_info=RunInfo(), n=1)


def test_a_run_that_died_before_its_first_row_is_in_nobody_s_way(tmp_path: Path) -> None:
    stopped(tmp_path, 0)
    complete(tmp_path, sampling={"temperature": 0.5})


@pytest.mark.parametrize("path", ["out", "out.jsonl"])
def test_temporary_files_that_a_kill_left_go(tmp_path: Path, path: str) -> None:
    output = {"format": "jsonl"}
    complete(tmp_path / path, output=output)
    place = OutputPlace.of(tmp_path / path)
    left = [place.manifest, place.input_spool / "stdin.jsonl", place.shard(7, ".jsonl")]
    left += [place.card or place.target]
    for name in left:
        name.parent.mkdir(parents=True, exist_ok=True)
        Disk.temporary(name).touch()
    other = tmp_path / ".mine.tmp"
    other.touch()
    claim(place)
    assert list(tmp_path.rglob(".*.tmp")) == [other]


def test_a_run_that_stopped_before_its_first_row_may_be_started_again(tmp_path: Path) -> None:
    stopped(tmp_path, 0)
    complete(tmp_path)
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == [
        "train-00000.parquet",
        "train-00001.parquet",
    ]


def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "_tightrun").mkdir()
    (tmp_path / "_tightrun" / "manifest.json").write_text('{"half":')
    with pytest.raises(OutputError, match="is not a manifest that this version can read"):
        opened(tmp_path)


def test_new_moves_the_old_folder_aside_whole(tmp_path: Path) -> None:
    complete(tmp_path / "out")
    place = OutputPlace.of(tmp_path / "out")
    ((old, new),) = claim(place, "new")
    assert old == tmp_path / "out"
    assert not old.exists()
    assert new.name.startswith("out.20")
    earlier = read_manifest(new / "_tightrun" / "manifest.json")
    assert earlier is not None
    assert earlier.state == "complete"
    complete(tmp_path / "out", rows=3)


def test_new_moves_every_part_of_a_single_file_under_one_time(tmp_path: Path) -> None:
    for name in ("r.jsonl", "r_errors.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "r.tightrun").mkdir()
    moved = claim(OutputPlace.of(tmp_path / "r.jsonl"), "new")
    times = {new.name.removeprefix(f"{old.name}.") for old, new in moved}
    assert len(moved) == 3
    assert len(times) == 1
    assert all(new.exists() for _, new in moved)


def test_new_twice_in_a_second_keeps_both(tmp_path: Path) -> None:
    place, names = OutputPlace.of(tmp_path / "out"), set[str]()
    for _ in range(3):
        place.target.mkdir()
        names.add(claim(place, "new")[0][1].name)
    assert len(names) == 3


def test_new_with_nothing_there_moves_nothing(tmp_path: Path) -> None:
    assert claim(OutputPlace.of(tmp_path / "out"), "new") == []


def test_runs_are_numbered_though_one_died_without_a_report(tmp_path: Path) -> None:
    place = OutputPlace.of(tmp_path)
    assert next_run(place) == 1
    stopped(tmp_path, 3)
    assert next_run(place) == 2
