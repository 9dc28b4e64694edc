"""The nouns of the input side: a source, the scan of all sources, a chunk of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from tightrun.core import Completion, Request
from tightrun.io.remote import InputPath

SourceKind = Literal["parquet", "jsonl", "openai-batch", "dataset"]
InputFormat = Literal["parquet", "jsonl", "openai-batch", "dataset", "mixed"]


class InputError(ValueError):
    """The input cannot be used as it is; the message says where and what to do about it."""


class UnkeptError(InputError):
    """The disk refused a copy of the input, which is not the job's fault."""


class BadRowError(ValueError):
    """A row that cannot be executed: a code of `core.ERROR_CODES`, and why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Source:
    """One file (or one split of a dataset) of the job, as the scan found it.

    `name` is the path relative to the input's root, in the source_file column and in made-up
    ids. `path` is where the person put it; `data_path` what is really read (the spooled copy of
    stdin, or of a compressed or remote file, else the same). For a line file, `offsets` and `lines`
    hold the byte and the line number (from 1) at which every 1,024th row begins. `stamp` tells a
    file that has changed since.
    """

    name: str
    path: InputPath
    data_path: InputPath
    kind: SourceKind
    start: int
    rows: int
    bytes: int
    stamp: tuple[int, int]
    offsets: np.ndarray | None = None
    lines: np.ndarray | None = None

    @property
    def stop(self) -> int:
        """The row_index after this source's last row."""
        return self.start + self.rows


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over the ids, lengths and types of the whole input found.

    It keeps 12 bytes a row; nothing else in it grows with the input.

    `schema` has the kept input columns only, under their own names, types unified over all files;
    `json_columns` are those of them whose incompatible types became a JSON string. `columns` are
    the names of all columns seen, kept or not. `lengths` [rows] is the bytes of each row's prompt
    text, or of the row where that is not known; `id_hashes` [rows] is 64 bits of each id.
    `fingerprint` changes with any id and with their order. `warnings` are sentences for the person.
    `versions` tells, of each remote file and dataset by its URL, which content was found.
    """

    rows: int
    sources: tuple[Source, ...]
    schema: pa.Schema
    lengths: np.ndarray
    id_hashes: np.ndarray
    format: InputFormat
    fingerprint: str
    columns: tuple[str, ...] = ()
    json_columns: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InputChunk:
    """Consecutive rows of one source: at most about 1 MiB or 1,000 rows; one huge row is a chunk.

    It crosses neither a source nor a multiple of the job's shard_rows. `items` holds a Request
    per row, or, where the row cannot be executed, a Completion with `.error` and no samples.
    `columns` holds the kept input columns of exactly these rows, in the scan's schema. An OpenAI
    batch line has none; `Request.raw` says which of the two urls it came for.
    """

    start: int
    source_file: str
    items: tuple[Request | Completion, ...]
    columns: pa.Table
    nbytes: int
    source_row: int = 0
    lines: tuple[int, ...] | None = field(default=None, repr=False)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.items)

    def place(self, i: int) -> str:
        """Where the `i`-th row of the chunk stands: file:line, or file#row for tables."""
        if self.lines is not None:
            return f"{self.source_file}:{self.lines[i]}"
        return f"{self.source_file}#{self.source_row + i}"
