"""Parquet files, read in small batches that hold only the columns asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tightrun.io.input_types import InputError
from tightrun.io.parquet_footer import column_bytes
from tightrun.io.remote import HubDataset, InputPath, RemoteFile, stamp_of
from tightrun.io.tables import batch_rows

# Pages are read through a buffer of this size; without one, a row group's columns are read whole.
_BUFFER_BYTES = 1 << 20
_REMOTE_BUFFER_BYTES = 8 << 20


class ParquetTable:
    """One Parquet file; raises InputError if it is none, or has two columns of one name."""

    def __init__(self, path: InputPath) -> None:
        self._path = path.now() if isinstance(path, RemoteFile) else path
        with self._open() as file:
            self._groups = file.metadata
            try:
                self.schema: pa.Schema = file.schema_arrow
                _ = self.schema.names
                self._bytes = self._sizes_of(self._path)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise self._damaged(error) from error
        self.rows: int = self._groups.num_rows
        groups = range(self._groups.num_row_groups)
        sizes = [self._groups.row_group(group).num_rows for group in groups]
        self._starts: list[int] = [0, *accumulate(sizes)][: len(sizes)]
        self.stamp = stamp_of(self._path)
        self.bytes = self.stamp[0]
        twice = [name for name, count in Counter(self.schema.names).items() if count > 1]
        if twice:
            raise InputError(
                f"{path} has two columns named {twice[0]!r}; rename one of them in the file"
            )

    def batches(self, columns: Sequence[str], start: int = 0) -> Iterator[pa.RecordBatch]:
        """See `Table`."""
        names = [name for name in self.schema.names if name in set(columns)]
        with self._open() as file:
            first = self._group_of(start) if start < self.rows else len(self._starts)
            for group in range(first, len(self._starts)):
                skip = max(0, start - self._starts[group])
                yield from self._group_batches(file, group, names, skip)

    def mean_bytes(self, columns: Sequence[str]) -> np.ndarray:
        """See `Table`."""
        means = [np.zeros(0, np.int64)]
        for group in range(len(self._starts)):
            rows = self._groups.row_group(group).num_rows
            means.append(np.full(rows, self._group_bytes(group, columns) // max(1, rows), np.int64))
        return np.concatenate(means)

    def nearest_start(self, row: int) -> int:
        """See `Table`."""
        return self._starts[self._group_of(row)]

    def _group_of(self, row: int) -> int:
        return max(0, bisect_right(self._starts, row) - 1)

    def _group_batches(
        self, file: pq.ParquetFile, group: int, names: list[str], skip: int
    ) -> Iterator[pa.RecordBatch]:
        try:
            rows = self._groups.row_group(group).num_rows
            size = batch_rows(self._group_bytes(group, names), rows)
            read = file.iter_batches(size, row_groups=[group], columns=names, use_threads=False)
            for batch in read:
                if skip < batch.num_rows:
                    yield batch.slice(skip).select(names)
                skip = max(0, skip - batch.num_rows)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise self._damaged(error) from error

    def _group_bytes(self, group: int, names: Sequence[str]) -> int:
        wanted = set(names)
        return sum(
            nbytes
            for path, nbytes in self._bytes[group].items()
            if path.split(".")[0] in wanted or path in wanted
        )

    def _sizes_of(self, path: InputPath) -> list[dict[str, int]]:
        assert not isinstance(path, HubDataset)
        found = column_bytes(path)
        if len(found) != self._groups.num_row_groups:
            raise ValueError("its footer is damaged")
        return found

    def _open(self) -> pq.ParquetFile:
        source, buffer = self._path, _BUFFER_BYTES
        try:
            if isinstance(source, RemoteFile):
                source, buffer = pa.PythonFile(source.open()), _REMOTE_BUFFER_BYTES
            return pq.ParquetFile(source, buffer_size=buffer, pre_buffer=False)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InputError:
        return InputError(
            f"{self._path} cannot be read as Parquet ({error}); it may be cut off: "
            "copy it again or leave it out of input.path"
        )
