"""A shard as a Parquet file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tightrun.io.durable import DiskFile
from tightrun.io.input_types import InputChunk
from tightrun.io.output_place import OutputError
from tightrun.io.rows import RowShape
from tightrun.io.shard import Piece, Stamp

# Small enough to be written from a few MiB of memory, large enough for readers to skip by.
GROUP_ROWS = 1_000
GROUP_BYTES = 16 << 20
_COMPRESSION = "zstd"


class ParquetFormat:
    """Rows of a `RowShape`, zstd-compressed, in groups of about a thousand rows."""

    suffix = ".parquet"

    def __init__(self, kept: pa.Schema, shape: RowShape) -> None:
        self.spooled = kept
        self._shape = shape
        _refuse_unwritable(shape.schema)

    @property
    def columns(self) -> dict[str, str]:
        return self._shape.columns

    def spool(self, chunk: InputChunk) -> pa.Table:
        return chunk.columns

    def write(
        self,
        pieces: Iterable[Piece],
        file: DiskFile,
        errors: DiskFile | None,  # noqa: ARG002
        stamp: Stamp,
    ) -> None:
        schema = self._shape.schema
        with pq.ParquetWriter(file, schema, compression=_COMPRESSION) as writer:
            writer.add_key_value_metadata(_about(stamp))
            for group in self._groups(pieces):
                writer.write_table(pa.Table.from_batches(group, schema))

    def is_whole(self, path: Path, stamp: Stamp) -> bool:
        try:
            found = pq.read_metadata(path)
        except (pa.ArrowException, OSError):
            return False
        said = found.metadata or {}
        return found.num_rows == stamp.rows and all(
            said.get(key.encode()) == value.encode() for key, value in _about(stamp).items()
        )

    def _groups(self, pieces: Iterable[Piece]) -> Iterator[list[pa.RecordBatch]]:
        group: list[pa.RecordBatch] = []
        rows = nbytes = 0
        for piece in pieces:
            completions = [finished.completion for finished in piece.finished]
            group.append(self._shape.batch(completions, piece.kept))
            rows += group[-1].num_rows
            nbytes += group[-1].nbytes
            if rows >= GROUP_ROWS or nbytes >= GROUP_BYTES:
                yield group
                group, rows, nbytes = [], 0, 0
        if group:
            yield group


def _about(stamp: Stamp) -> dict[str, str]:
    """The stamp as metadata of the file."""
    return {f"tightrun.{name}": str(value) for name, value in stamp._asdict().items()}


def _refuse_unwritable(schema: pa.Schema) -> None:
    """Raises now what would otherwise come up when the first shard is written, hours later."""
    for field in schema:
        try:
            pq.ParquetWriter(io.BytesIO(), pa.schema([field])).close()
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            raise OutputError(
                f"column {field.name!r} ({field.type}) cannot be written to Parquet: {error}; "
                "leave it out with output.keep_columns, or use output.format: jsonl"
            ) from error
