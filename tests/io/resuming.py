"""Runs of made-up jobs that end early, and what the next run makes of what they left."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.io.finished_rows import bad_row, good_row, made_chunks, made_job, made_scan
from tightrun.core import Completion
from tightrun.io.durable import Disk
from tightrun.io.earlier_run import claim
from tightrun.io.input_types import Scan
from tightrun.io.output_place import OutputPlace, Resume
from tightrun.io.outputs import OutputWriter, RunInfo

ROWS = 35
SHARD_ROWS = 10


def outcome(row: int) -> Completion:
    """What a row comes to in every run; now and then an error."""
    return bad_row(row, "oom") if row % 7 == 3 else good_row(row)


class Run:
    """One run over `ROWS` rows, from its claim to its end; it finishes what it is told to."""

    def __init__(
        self,
        out: Path,
        *,
        limit: int | None = None,
        disk: Disk | None = None,
        scan: Scan | None = None,
        number: int = 1,
        resume: Resume = "auto",
        retry: Collection[str] = (),
        **sections: Any,
    ) -> None:
        sections["output"] = {"shard_rows": SHARD_ROWS, **sections.get("output", {})}
        self.job = made_job(out, **sections)
        self.scan = scan or made_scan(ROWS)
        place = OutputPlace.of(out)
        claim(place, resume, disk)
        self.writer = OutputWriter(
            self.job,
            self.scan,
            run_info=RunInfo(number=number),
            n=1,
            rows=limit,
            place=place,
            resume=resume,
            retry=frozenset(retry),
            disk=disk,
        )
        self.asked: list[int] = []
        self.attempts: dict[int, int] = {}

    def admit(self) -> None:
        """Reads what is to be read; `asked` are the rows that are to be run."""
        for rows in self.writer.to_read(threading.Event()):
            cut = replace(self.scan, rows=rows.stop)
            for chunk in made_chunks(cut, self.job.output.shard_rows):
                if chunk.start in rows:
                    items = self.writer.admit(chunk)
                    self.asked += [item.row_index for item in items]
                    self.attempts |= {i.row_index: i.attempt for i in items if i.attempt}

    def finish(self, rows: Iterable[int]) -> None:
        """These rows come to their end."""
        for row in rows:
            self.writer.put(replace(outcome(row), attempt=self.attempts.get(row, 0)))

    def whole(self) -> list[int]:
        """Does all that is left, and ends; returns the rows that had to be run."""
        if not self.writer.already_complete:
            self.admit()
            self.finish(self.asked)
            self.writer.close(final=True)
        return self.asked


def killed(out: Path, image: Path, rows: Collection[int], **options: Any) -> None:
    """A run that is gone after these rows; `image` is what it leaves."""
    run = Run(out, **options)
    run.admit()
    run.finish(rows)
    run.writer.flush()
    for part in (out, *out.parent.glob(f"{out.stem}.tightrun")):
        target = image.parent / part.name.replace(out.stem, image.stem)
        if part.is_dir():
            shutil.copytree(part, target)
        elif part.exists():
            shutil.copy(part, target)
    run.writer.close(final=False)


def rows_in(out: Path) -> list[dict[str, Any]]:
    """All rows of an output in the order of its files; what tells the time is left out."""
    if out.suffix == ".jsonl":
        return _lines(out)
    rows: list[dict[str, Any]] = []
    for path in sorted((out / "data").iterdir()):
        rows += pq.read_table(path).to_pylist() if path.suffix == ".parquet" else _lines(path)
    return rows


def table_in(out: Path) -> pa.Table:
    """All rows of a Parquet output."""
    return pa.concat_tables([pq.read_table(path) for path in sorted((out / "data").iterdir())])


def _lines(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        body = (row.get("response") or {}).get("body")
        if body:
            body.pop("created", None)
    return rows
