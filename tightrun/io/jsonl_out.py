"""A shard as JSON lines: the same rows and names as in Parquet.

Dates and times are ISO 8601, bytes hexadecimal, decimals text; a number that is not finite is
null, because JSON has no word for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tightrun.io.durable import DiskFile
from tightrun.io.input_types import InputChunk
from tightrun.io.jsonl import json_text
from tightrun.io.rows import RowShape
from tightrun.io.shard import Piece, Stamp


class JsonlFormat:
    """Rows of a `RowShape`, one JSON object a line."""

    suffix = ".jsonl"

    def __init__(self, kept: pa.Schema, shape: RowShape) -> None:
        self.spooled = kept
        self._shape = shape

    @property
    def columns(self) -> dict[str, str]:
        return self._shape.columns

    def spool(self, chunk: InputChunk) -> pa.Table:
        return chunk.columns

    def write(
        self,
        pieces: Iterable[Piece],
        file: DiskFile,
        errors: DiskFile | None,
        stamp: Stamp,  # noqa: ARG002
    ) -> None:
        for piece in pieces:
            rows = [finished.completion for finished in piece.finished]
            batch = self._shape.batch(rows, piece.kept)
            for row, values in zip(rows, _values(batch), strict=True):
                line = json_text(values).encode() + b"\n"
                file.write(line)
                if errors is not None and row.error is not None:
                    errors.write(line)

    def is_whole(self, path: Path, stamp: Stamp) -> bool:  # noqa: ARG002
        # Lines say nothing of themselves: that the bytes are the ones written is all there is.
        return True


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    columns = [_python_values(column) for column in batch.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def _python_values(column: pa.Array) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):
        # Dates and times outside of what Python's own types can say, the year 20000 for one.
        values = column.cast(pa.string()).to_pylist()
    return values
