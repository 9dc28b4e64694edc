"""The reading: the rows of a scanned input as chunks of requests, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tightrun.core import Completion, Request, RowError
from tightrun.io.arrow_types import conform
from tightrun.io.input_types import BadRowError, InputChunk, InputError, Scan, Source
from tightrun.io.job_model import Job
from tightrun.io.jsonl import Line, json_text
from tightrun.io.line_rows import line_rows, parse_line
from tightrun.io.openai_batch import BatchLineReader
from tightrun.io.prompts import ColumnReader, Row, RowReader, read_row
from tightrun.io.table_rows import open_table, readable, table_rows

CHUNK_BYTES = 1 << 20
CHUNK_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read: the job's rows from `start` on, up to but not including `stop`."""

    scan: Scan
    job: Job
    start: int
    stop: int

    def chunks(self) -> Iterator[InputChunk]:
        """The rows as chunks; raises InputError for a file that is no longer what was scanned."""
        columns: ColumnReader | None = None
        batch = BatchLineReader(self.job)
        for source in self.scan.sources:
            begin, end = max(self.start, source.start), min(self.stop, source.stop)
            if begin >= end:
                continue
            if source.kind == "openai-batch":
                yield from self._line_chunks(source, batch, begin, end)
                continue
            columns = columns or ColumnReader(self.job, self.scan.columns)
            if source.kind == "jsonl":
                yield from self._line_chunks(source, columns, begin, end)
            else:
                yield from self._table_chunks(source, columns, begin, end)

    def _line_chunks(
        self, source: Source, reader: RowReader, begin: int, end: int
    ) -> Iterator[InputChunk]:
        _refuse_changed(source, source.data_path)
        held: list[Line] = []
        size, row = 0, begin
        for line in line_rows(source, begin - source.start):
            full = size + line.size > CHUNK_BYTES or len(held) == CHUNK_ROWS
            if held and (full or row % self.job.output.shard_rows == 0):
                yield self._line_chunk(source, reader, row - len(held), held)
                held, size = [], 0
            if row == end:
                break
            held.append(line)
            size += line.size
            row += 1
        if held:
            yield self._line_chunk(source, reader, row - len(held), held)
        if row != end:
            raise _changed(source)

    def _line_chunk(
        self, source: Source, reader: RowReader, start: int, lines: list[Line]
    ) -> InputChunk:
        items: list[Request | Completion] = []
        rows: list[Row] = []
        is_batch = source.kind == "openai-batch"
        for i, line in enumerate(lines):
            row = parse_line(line)
            made_up = f"{source.name}#{start + i - source.start}"
            place = f"{source.name}:{line.number}"
            items.append(read_row(reader, row, start + i, made_up, place))
            rows.append({} if is_batch or isinstance(row, BadRowError) else row)
        columns = self._json_columns(source, rows)
        return InputChunk(
            start=start,
            source_file=source.name,
            items=tuple(items),
            columns=columns,
            nbytes=columns.nbytes + sum(line.size for line in lines),
            source_row=start - source.start,
            lines=tuple(line.number for line in lines),
        )

    def _json_columns(self, source: Source, rows: list[Row]) -> pa.Table:
        arrays = []
        for field in self.scan.schema:
            values = [row.get(field.name) for row in rows]
            if field.name in self.scan.json_columns:
                values = [None if value is None else json_text(value) for value in values]
            arrays.append(_json_array(values, field.type, source))
        return _table(arrays, self.scan.schema, len(rows))

    def _table_chunks(
        self, source: Source, reader: ColumnReader, begin: int, end: int
    ) -> Iterator[InputChunk]:
        table, _ = open_table(source.data_path, source.kind, self.job.input)
        if table.stamp != source.stamp:
            raise _changed(source)
        names = dict.fromkeys((*reader.needed, *self.scan.schema.names))
        row = begin
        for batch in table.batches(list(names), begin - source.start):
            for piece in self._pieces(batch.slice(0, end - row), row):
                yield self._table_chunk(source, reader, row, piece)
                row += piece.num_rows
            if row == end:
                break
        if row != end:
            raise _changed(source)

    def _pieces(self, batch: pa.RecordBatch, row: int) -> Iterator[pa.RecordBatch]:
        shard_rows = self.job.output.shard_rows
        while batch.num_rows:
            size = min(batch.num_rows, CHUNK_ROWS, shard_rows - row % shard_rows)
            while size > 1 and batch.slice(0, size).nbytes > CHUNK_BYTES:
                size = (size + 1) // 2
            yield batch.slice(0, size)
            batch, row = batch.slice(size), row + size

    def _table_chunk(
        self, source: Source, reader: ColumnReader, start: int, batch: pa.RecordBatch
    ) -> InputChunk:
        needed = [name for name in reader.needed if name in batch.schema.names]
        columns, bad = self._kept_columns(batch)
        first = start - source.start
        items: list[Request | Completion] = []
        for i, row in enumerate(table_rows(batch, needed)):
            name = f"{source.name}#{first + i}"
            item = read_row(reader, row, start + i, name, name)
            items.append(_spoiled(item, bad[i], name) if i in bad else item)
        return InputChunk(
            start=start,
            source_file=source.name,
            items=tuple(items),
            columns=columns,
            nbytes=columns.nbytes + batch.nbytes,
            source_row=first,
        )

    def _kept_columns(self, batch: pa.RecordBatch) -> tuple[pa.Table, dict[int, BadRowError]]:
        arrays: list[pa.Array] = []
        bad: dict[int, BadRowError] = {}
        for field in self.scan.schema:
            if field.name not in batch.schema.names:
                arrays.append(pa.nulls(batch.num_rows, field.type))
                continue
            array, unreadable = readable(batch.column(field.name), field.name)
            bad |= unreadable
            arrays.append(conform(array, field.type, field.name in self.scan.json_columns))
        return _table(arrays, self.scan.schema, batch.num_rows), bad


def _table(arrays: list[pa.Array], schema: pa.Schema, rows: int) -> pa.Table:
    if arrays:
        return pa.Table.from_arrays(arrays, schema=schema)
    # A table of no columns still has rows; only a slice of one column more can say so.
    return pa.table({"": pa.nulls(rows)}).select([])


def _json_array(values: list[Any], kind: pa.DataType, source: Source) -> pa.Array:
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, OverflowError):
        # Another source widened the type further than these values take by themselves.
        try:
            return conform(pa.array(values), kind)
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise _changed(source) from error


def _spoiled(item: Request | Completion, why: BadRowError, place: str) -> Request | Completion:
    if isinstance(item, Completion):
        return item
    return Completion(item.row_index, item.id, error=RowError(why.code, f"{place}: {why}"))


def _refuse_changed(source: Source, path: Any) -> None:
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) != source.stamp:
        raise _changed(source)


def _changed(source: Source) -> InputError:
    return InputError(f"{source.path} has changed since it was scanned; run the job again")
