"""A job that was changed takes over the rows whose ids it still has, at their new place."""

from __future__ import annotations

import random
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.io.faulty_disk import FaultyDisk, PowerCut
from tests.io.finished_rows import made_chunks, made_scan
from tests.io.resuming import ROWS, Run, killed, outcome, rows_in
from tightrun.core import Completion, Request
from tightrun.io.input_types import InputChunk, Scan
from tightrun.io.output_place import OutputError, OutputPlace
from tightrun.io.outputs import WriteError
from tightrun.io.row_ids import hash_id

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "parquet": ("out", {"format": "parquet"}),
    "jsonl": ("out", {"format": "jsonl"}),
    "single file": ("out.jsonl", {"format": "openai-batch"}),
}


def scan_of(ids: list[str]) -> Scan:
    """A scan of rows with these ids."""
    hashes = np.array([hash_id(name) for name in ids], np.uint64)
    return replace(made_scan(len(ids), fingerprint=" ".join(ids)), id_hashes=hashes)


MOMENTS = 15

OLD = [f"id-{row}" for row in range(ROWS)]
# Some are gone, some are new, and all the others stand elsewhere.
NEW = ["new-0", *reversed(OLD[5:]), "new-1"]


class Changed(Run):
    """A run over the rows `NEW`; a row comes to what the old row of its id came to."""

    def __init__(self, out: Path, **options: Any) -> None:
        super().__init__(out, scan=scan_of(NEW), **{"resume": "force", **options})

    def whole(self) -> list[int]:
        for rows in self.writer.to_read(threading.Event()):
            for chunk in made_chunks(self.scan, self.job.output.shard_rows):
                if chunk.start in rows:
                    items = self.writer.admit(renamed(chunk))
                    self.asked += [item.row_index for item in items]
                    for item in items:
                        self.writer.put(answer(item.row_index))
        self.writer.close(final=True)
        return self.asked


def renamed(chunk: InputChunk) -> InputChunk:
    items = tuple(Request(i.row_index, NEW[i.row_index], "") for i in chunk.items)
    return InputChunk(chunk.start, chunk.source_file, items, chunk.columns, chunk.nbytes)


def answer(row: int) -> Completion:
    """What a row of `NEW` comes to."""
    name = NEW[row]
    old = outcome(OLD.index(name)) if name in OLD else outcome(ROWS)
    return Completion(row, name, old.samples, old.prompt_tokens, old.seed, error=old.error)


def unfinished(folder: Path, name: str, output: dict[str, Any]) -> Path:
    """An output with whole shards and begun ones."""
    (folder / "image").mkdir(parents=True)
    done = [*range(20), 24, 31]
    killed(folder / name, folder / "image" / name, done, scan=scan_of(OLD), output=output)
    return folder / "image" / name


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def expected(folder: Path, way: str) -> list[dict[str, Any]]:
    name, output = WAYS[way]
    Changed(folder / name, resume="auto", output=output).whole()
    return rows_in(folder / name)


def test_a_changed_input_is_refused_with_what_differs_and_the_way_out(tmp_path: Path) -> None:
    out = unfinished(tmp_path, "out", {})
    with pytest.raises(OutputError, match=r"input.rows: 35 -> 32.*--resume force"):
        Changed(out, resume="auto")


def test_rows_with_ids_of_the_new_input_are_kept_at_their_new_place(
    tmp_path: Path, way: str
) -> None:
    name, output = WAYS[way]
    run = Changed(unfinished(tmp_path, name, output), output=output)
    kept = [NEW.index(OLD[row]) for row in (*range(5, 20), 24, 31)]
    assert run.writer.rows_done == len(kept)
    assert run.writer.earlier.complaints == [
        "5 finished rows are left out: this job has none of their ids"
    ]
    assert run.whole() == sorted(set(range(len(NEW))) - set(kept))
    assert rows_in(tmp_path / "image" / name) == expected(tmp_path / "whole", way)


def test_a_finished_output_is_taken_over_as_well(tmp_path: Path, way: str) -> None:
    name, output = WAYS[way]
    (tmp_path / "one").mkdir()
    Run(tmp_path / "one" / name, scan=scan_of(OLD), output=output).whole()
    run = Changed(tmp_path / "one" / name, output=output)
    assert run.whole() == [0, len(NEW) - 1]
    assert rows_in(tmp_path / "one" / name) == expected(tmp_path / "whole", way)


def test_other_shards_are_no_other_rows(tmp_path: Path) -> None:
    out = unfinished(tmp_path, "out", {})
    run = Run(out, scan=scan_of(OLD), resume="force", output={"shard_rows": 12})
    assert run.writer.rows_done == 22
    assert run.whole() == sorted(set(range(ROWS)) - {*range(20), 24, 31})
    assert len(list((out / "data").iterdir())) == 3


def test_rows_of_a_limited_run_are_taken_over_once(tmp_path: Path) -> None:
    """The journal of its last shard has rows that the shard has too."""
    Run(tmp_path, scan=scan_of(OLD), limit=15).whole()
    run = Run(tmp_path, scan=scan_of(OLD), resume="force", output={"shard_rows": 12})
    assert run.whole() == list(range(15, ROWS))


def test_damaged_rows_are_not_taken_over(tmp_path: Path) -> None:
    Run(tmp_path, scan=scan_of(OLD)).whole()
    path = tmp_path / "data" / "train-00001.parquet"
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    run = Changed(tmp_path)
    kept = {NEW.index(OLD[row]) for row in (*range(5, 10), *range(20, ROWS))}
    assert run.whole() == sorted(set(range(len(NEW))) - kept)


def test_another_format_is_refused(tmp_path: Path) -> None:
    out = unfinished(tmp_path, "out", {})
    before = sorted(out.rglob("*"))
    with pytest.raises(OutputError, match="are parquet, and cannot be made jsonl"):
        Changed(out, output={"format": "jsonl"})
    assert sorted(out.rglob("*")) == before


def test_the_same_job_is_gone_on_with_as_ever(tmp_path: Path) -> None:
    out = unfinished(tmp_path, "out", {})
    run = Run(out, scan=scan_of(OLD), resume="force")
    assert run.writer.earlier.sealed == {0, 1}
    run.writer.close(final=False)


@pytest.mark.parametrize("name", ["out", "out.jsonl"])
def test_a_taking_over_that_breaks_off_anywhere_loses_no_row(tmp_path: Path, name: str) -> None:
    """One of the two jobs has all of its rows, and the one that has them goes on."""
    output = {"format": "jsonl"}
    template = unfinished(tmp_path / "template", name, output)
    disk = FaultyDisk()
    started(copied(template, tmp_path / "counting"), disk, output)
    for moment in random.Random(name).sample(range(disk.count), MOMENTS):
        out = copied(template, tmp_path / str(moment))
        with pytest.raises((PowerCut, OutputError, WriteError)):
            started(out, FaultyDisk(moment, dies=True), output)
        run = Changed(out, output=output)
        assert run.writer.rows_done == 17
        run.writer.close(final=False)
        assert not OutputPlace.of(out).aside.exists()


def copied(out: Path, folder: Path) -> Path:
    shutil.copytree(out.parent, folder)
    return folder / out.name


def started(out: Path, disk: FaultyDisk, output: dict[str, Any]) -> None:
    Changed(out, disk=disk, output=output).writer.close(final=False)
