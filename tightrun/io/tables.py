"""Rows that come in columns: what a Parquet file and a saved dataset have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

BATCH_BYTES = 4 << 20
BATCH_ROWS = 1000


class Table(Protocol):
    """Rows on disk under a schema, read in small batches."""

    @property
    def schema(self) -> pa.Schema:
        """The columns as they stand on disk."""

    @property
    def rows(self) -> int:
        """The number of rows."""

    @property
    def bytes(self) -> int:
        """The size of what is read, on disk."""

    @property
    def stamp(self) -> tuple[int, int]:
        """Two numbers that another content would hardly have."""

    def batches(self, columns: Sequence[str], start: int = 0) -> Iterator[pa.RecordBatch]:
        """The named columns of the rows from `start` on; raises InputError for what is damaged.

        A batch has at most BATCH_ROWS rows, and about BATCH_BYTES unless one row is larger.
        """

    def mean_bytes(self, columns: Sequence[str]) -> np.ndarray:
        """About how many bytes the named columns of each row have, int64 [rows]; reads none."""

    def nearest_start(self, row: int) -> int:
        """The last row up to `row` that can be read without reading another first."""


def batch_rows(table_bytes: int, rows: int) -> int:
    """How many rows of a table of that size to read at once."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(1, table_bytes)))
