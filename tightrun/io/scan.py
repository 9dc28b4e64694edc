"""The scan: one pass over all input for ids, lengths and types, before anything is loaded."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from tightrun.io.columns import (
    CHAT_COLUMNS,
    INSTRUCTION,
    INSTRUCTION_INPUT,
    TEXT_COLUMNS,
    columns_to_scan,
    id_columns,
    keeps,
    template_names,
)
from tightrun.io.input_types import BadRowError, InputError, Source, SourceKind
from tightrun.io.job_model import Job
from tightrun.io.jsonl import Line, read_lines
from tightrun.io.lengths import array_bytes, text_bytes
from tightrun.io.line_rows import INDEX_STEP, READ_BYTES, parse_line
from tightrun.io.openai_batch import BatchLineReader, looks_like_batch
from tightrun.io.prompts import Row, identify
from tightrun.io.remote import InputPath, RemoteFile
from tightrun.io.row_ids import hash_id, hash_ids, row_id
from tightrun.io.schema_union import SchemaUnion
from tightrun.io.sources import Found
from tightrun.io.table_rows import open_table, table_rows, whole_texts
from tightrun.io.tables import BATCH_ROWS, Table

_LINES_TO_TELL = 20
_MAX_LENGTH = 2**32 - 1

Progress = Callable[[int], None]


class Scanner:
    """Goes over sources one by one; what it keeps of a row is a hash of its id and its length."""

    def __init__(self, job: Job, progress: Progress | None = None) -> None:
        self._job = job
        self._spec = job.input
        self._progress = progress
        self._template_names = template_names(job.input)
        self._hashes = array("Q")
        self._lengths = array("I")
        self._id_of = partial(row_id, columns=id_columns(self._spec))
        self.columns = SchemaUnion(partial(keeps, job.output))
        self.batch = BatchLineReader(job)
        self.sources: list[Source] = []
        self.first_problem: str | None = None

    @property
    def rows(self) -> int:
        """Rows scanned so far."""
        return len(self._hashes)

    @property
    def id_hashes(self) -> np.ndarray:
        """64 bits of each id, uint64 [rows]."""
        return np.frombuffer(self._hashes, np.uint64) if self._hashes else np.empty(0, np.uint64)

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of each prompt, uint32 [rows]."""
        return np.frombuffer(self._lengths, np.uint32) if self._lengths else np.empty(0, np.uint32)

    def scan_lines(self, found: Found, data_path: Path) -> None:
        """Takes in a file of lines; `data_path` is where its plain text lies."""
        kind = self._kind_of_lines(found, data_path)
        row_of = self._batch_row if kind == "openai-batch" else self._column_row
        start, offsets, numbers = self.rows, array("Q"), array("Q")
        with data_path.open("rb", buffering=READ_BYTES) as file:
            for i, line in enumerate(read_lines(file)):
                if i % INDEX_STEP == 0:
                    offsets.append(line.offset)
                    numbers.append(line.number)
                    self._tell()
                row_of(line, f"{found.name}#{i}")
        status = data_path.stat()
        self.sources.append(
            Source(
                name=found.name,
                path=found.path,
                data_path=data_path,
                kind=kind,
                start=start,
                rows=self.rows - start,
                bytes=status.st_size,
                stamp=(status.st_size, status.st_mtime_ns),
                offsets=np.array(offsets, np.uint64),
                lines=np.array(numbers, np.uint64),
            )
        )

    def scan_table(self, found: Found, data_path: InputPath) -> None:
        """Takes in a Parquet file or a dataset; of a remote file only the ids are read."""
        table, split = open_table(data_path, found.kind, self._spec)
        name = found.name if not split else f"{found.name}/{split}"
        self.columns.observe_schema(table.schema, name)
        ids = [column for column in id_columns(self._spec).columns if column in table.schema.names]
        texts = columns_to_scan(self._spec, table.schema.names)
        start = self.rows
        if isinstance(data_path, RemoteFile):
            self._scan_footer(table, ids, texts, name)
        else:
            self._scan_batches(table, ids, texts, name)
        self.sources.append(
            Source(
                name=name,
                path=found.path,
                data_path=data_path,
                kind="parquet" if found.kind == "parquet" else "dataset",
                start=start,
                rows=self.rows - start,
                bytes=table.bytes,
                stamp=table.stamp,
            )
        )

    def _scan_batches(
        self, table: Table, ids: Sequence[str], texts: Sequence[str], name: str
    ) -> None:
        start, average = self.rows, table.bytes // max(1, table.rows)
        for batch in table.batches([*ids, *texts]):
            done = self.rows - start
            self._hashes.frombytes(self._table_hashes(batch, ids, name, done).tobytes())
            lengths = np.full(batch.num_rows, 0 if texts else average, np.int64)
            for text in texts:
                lengths += array_bytes(batch.column(text))
            self._add_lengths(lengths)
            self._tell()

    def _scan_footer(
        self, table: Table, ids: Sequence[str], texts: Sequence[str], name: str
    ) -> None:
        """Texts stay where they are: their mean length in each row group is in the footer."""
        self._add_lengths(table.mean_bytes(texts or table.schema.names))
        batches = table.batches(ids) if ids else _empty_batches(table.rows)
        done = 0
        for batch in batches:
            self._hashes.frombytes(self._table_hashes(batch, ids, name, done).tobytes())
            done += batch.num_rows
            self._tell()

    def _add_lengths(self, lengths: np.ndarray) -> None:
        self._lengths.frombytes(np.minimum(lengths, _MAX_LENGTH).astype(np.uint32).tobytes())

    def _table_hashes(
        self, batch: pa.RecordBatch, ids: Sequence[str], name: str, first: int
    ) -> np.ndarray:
        # Most inputs have a text in every row, and no mapping per row has to be made.
        names = whole_texts(batch.column(ids[0])) if ids else None
        if names is None:
            made_up = [f"{name}#{i}" for i in range(first, first + batch.num_rows)]
            if not ids:
                return hash_ids(made_up)
            rows = zip(table_rows(batch, ids), made_up, strict=True)
            names = [identify(self._id_of, row, without) for row, without in rows]
        return hash_ids(names)

    def _kind_of_lines(self, found: Found, path: Path) -> SourceKind:
        spec = self._spec
        if spec.format != "auto":
            return "openai-batch" if spec.format == "openai-batch" else "jsonl"
        if spec.prompt or spec.messages or spec.template or spec.id not in (None, "custom_id"):
            return "jsonl"
        with path.open("rb", buffering=READ_BYTES) as file:
            first = [parse_line(line) for line in islice(read_lines(file), _LINES_TO_TELL)]
        if not any(looks_like_batch(row) for row in first if not isinstance(row, BadRowError)):
            return "jsonl"
        if spec.system is not None:
            raise InputError(
                f"{found.name} is an OpenAI batch file, whose lines bring their own system prompt; "
                "remove input.system, or set input.format: jsonl"
            )
        return "openai-batch"

    def _column_row(self, line: Line, made_up: str) -> None:
        row = parse_line(line)
        if not isinstance(row, BadRowError):
            self.columns.observe(row)
        elif self.first_problem is None:
            self.first_problem = f"{made_up.rpartition('#')[0]}:{line.number}: {row}"
        self._add(identify(self._id_of, row, made_up), self._length(row, line))

    def _batch_row(self, line: Line, made_up: str) -> None:
        row = parse_line(line)
        length = line.size
        if not isinstance(row, BadRowError):
            self.batch.note_model(row)
            body = row.get("body")
            if isinstance(body, dict):
                length = text_bytes(body.get("messages") or body.get("prompt"))
        self._add(identify(self.batch.id_of, row, made_up), length)

    def _length(self, row: Row | BadRowError, line: Line) -> int:
        spec = self._spec
        if isinstance(row, BadRowError):
            return line.size
        if self._template_names is not None:
            return sum(text_bytes(row.get(name)) for name in self._template_names)
        named = spec.prompt or spec.messages
        for name in (named,) if named else (*CHAT_COLUMNS, *TEXT_COLUMNS):
            value = row.get(name)
            if value is not None:
                more = row.get(INSTRUCTION_INPUT) if name == INSTRUCTION and not named else None
                return text_bytes(value) + text_bytes(more)
        return line.size

    def _add(self, name: str, length: int) -> None:
        self._hashes.append(hash_id(name))
        self._lengths.append(min(length, _MAX_LENGTH))

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.rows)


def _empty_batches(rows: int) -> Iterator[pa.RecordBatch]:
    """Batches that say no more than how many rows there are."""
    for start in range(0, rows, BATCH_ROWS):
        count = min(BATCH_ROWS, rows - start)
        yield pa.record_batch({"": pa.nulls(count)})
