"""The kept input columns of a shard, on disk from the moment its rows are admitted.

An Arrow IPC stream: one batch per admitted chunk, with the chunk's first row, number of rows and
source file as the batch's own metadata, so that the file explains itself after a crash.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from tightrun.io.durable import Disk
from tightrun.io.row_record import well_formed


class Kept(NamedTuple):
    """The kept columns of consecutive rows of one source file."""

    start: int
    rows: int
    source_file: str
    columns: pa.RecordBatch

    def part(self, rows: range) -> Kept:
        """The same of some of the rows."""
        columns = self.columns
        if columns.num_columns:
            columns = columns.slice(rows.start - self.start, len(rows))
        return Kept(rows.start, len(rows), self.source_file, columns)


class ColumnSpool:
    """The spool of one shard. Chunks are added in input order. Not thread-safe."""

    def __init__(self, disk: Disk, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self._disk = disk
        self._schema = schema
        self._file = disk.append(path)
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_stream(self._file, schema, options=options)
        self._dirty = True

    def add(self, start: int, rows: int, source_file: str, columns: pa.Table) -> None:
        """Writes the columns of rows `[start, start + rows)`."""
        about = {"start": str(start), "rows": str(rows), "source_file": well_formed(source_file)}
        self._writer.write_batch(_one_batch(columns, self._schema), custom_metadata=about)
        self._dirty = True

    def read(self) -> Iterator[Kept]:
        """What was added, in that order; nothing can be added afterwards."""
        self._writer.close()
        self._file.flush()
        with self.path.open("rb") as file, pa.ipc.open_stream(file) as stream:
            while True:
                try:
                    batch, about = stream.read_next_batch_with_custom_metadata()
                except StopIteration:
                    return
                start, rows, source = (about[key] for key in (b"start", b"rows", b"source_file"))
                yield Kept(int(start), int(rows), source.decode(), batch)

    def sync(self) -> None:
        """Returns when all that was added is on the disk."""
        if self._dirty:
            self._file.sync()
            self._dirty = False

    def close(self) -> None:
        self._writer.close()
        self._file.close()

    def abandon(self) -> None:
        """Closes after a failure; what had reached the disk stays there."""
        self._file.abandon()

    def remove(self) -> None:
        """Removes the file: the shard is sealed."""
        self._dirty = False
        self._file.abandon()
        self._disk.remove(self.path)


def _one_batch(columns: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
    """A chunk's columns as the single batch that its metadata is about."""
    arrays = []
    for name in schema.names:
        column = columns.column(name)
        arrays.append(column.chunk(0) if column.num_chunks == 1 else column.combine_chunks())
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
