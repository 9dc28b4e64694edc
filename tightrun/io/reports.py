"""The report tables of an output: `steps` has a row per pass, `runs` a row per run."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from tightrun.core import RunRecord, StepRecord
from tightrun.io.durable import Disk
from tightrun.io.output_place import OutputPlace

STEPS_PER_FILE = 10_000
SECONDS_PER_FILE = 300.0
_ARROW_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string()}


def _schema_of(record: type[StepRecord] | type[RunRecord]) -> pa.Schema:
    """The record's fields in order; a field whose type is a choice of words is a string."""
    hints = get_type_hints(record)
    types = {item.name: _ARROW_TYPES.get(hints[item.name], pa.string()) for item in fields(record)}
    return pa.schema(list(types.items()))


STEPS = _schema_of(StepRecord)
RUNS = _schema_of(RunRecord)


class ReportWriter:
    """Writes the tables of one run under `folder` (the `report` of an OutputPlace).

    `step` is cheap: a table is written beside the run, every 10,000 passes or 5 minutes. An error
    of the disk is raised by the call after it.
    """

    def __init__(
        self,
        folder: Path,
        run: int,
        disk: Disk | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps_folder = folder / "steps"
        self._runs_folder = folder / "runs"
        self._run = run
        self._disk = disk or Disk()
        self._clock = clock
        self._lock = threading.Lock()
        self._steps: list[StepRecord] = []
        self._opened_s = clock()
        self._files = 0
        self._writes: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tightrun-report")
        for made in (self._steps_folder, self._runs_folder):
            self._disk.make_folder(made)

    def step(self, record: StepRecord) -> None:
        """Adds a pass; it is this run's, whatever number the engine gave it."""
        with self._lock:
            self._raise_if_failed()
            self._steps.append(replace(record, run=self._run))
            old = self._clock() - self._opened_s >= SECONDS_PER_FILE
            if old or len(self._steps) >= STEPS_PER_FILE:
                self._close_file()

    def run(self, record: RunRecord) -> None:
        """Writes the row of the run; again if it is called again."""
        path = self._runs_folder / f"run-{self._run:04d}.parquet"
        _write_table(self._disk, path, [record], RUNS)

    def close(self) -> None:
        """Writes what is left of the passes; closing again does nothing."""
        with self._lock:
            if self._steps:
                self._close_file()
        self._pool.shutdown()
        with self._lock:
            self._raise_if_failed()

    def _close_file(self) -> None:
        path = self._steps_folder / f"run-{self._run:04d}-{self._files:05d}.parquet"
        self._writes.append(self._pool.submit(_write_table, self._disk, path, self._steps, STEPS))
        self._files += 1
        self._steps = []
        self._opened_s = self._clock()

    def _raise_if_failed(self) -> None:
        """Raises the first error of a table that could not be written, once."""
        done = [write for write in self._writes if write.done()]
        self._writes = [write for write in self._writes if not write.done()]
        for write in done:
            write.result()


def read_runs(out: str | Path) -> list[RunRecord]:
    """The runs of an output (folder or single file), oldest first."""
    return [
        RunRecord(**row) for row in _read(OutputPlace.of(out).report / "runs", RUNS).to_pylist()
    ]


def read_steps(out: str | Path) -> pa.Table:
    """The passes of all runs of an output, in the order in which they were made."""
    return _read(OutputPlace.of(out).report / "steps", STEPS)


def _read(folder: Path, schema: pa.Schema) -> pa.Table:
    """All tables of a folder in order of their names; columns this version lacks are left out."""
    tables = []
    for path in sorted(folder.glob("run-*.parquet")):
        table = pq.read_table(path)
        columns = [
            table.column(field.name).cast(field.type)
            if field.name in table.schema.names
            else pa.nulls(table.num_rows, field.type)
            for field in schema
        ]
        tables.append(pa.table(columns, schema=schema))
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _write_table(
    disk: Disk, path: Path, records: Sequence[StepRecord | RunRecord], schema: pa.Schema
) -> None:
    rows: Iterable[dict[str, Any]] = (
        {name: getattr(record, name) for name in schema.names} for record in records
    )
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink, compression="zstd")
    disk.write_whole(path, [sink.getvalue()])
