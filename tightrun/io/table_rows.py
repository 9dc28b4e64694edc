"""The tables of the input, opened, and their rows as mappings with the cells that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from tightrun.io.arrow_types import plain
from tightrun.io.dataset_in import open_dataset
from tightrun.io.input_types import BadRowError
from tightrun.io.job_sections import InputSpec
from tightrun.io.parquet_in import ParquetTable
from tightrun.io.remote import HubDataset, InputPath
from tightrun.io.tables import Table


def open_table(path: InputPath, kind: str, spec: InputSpec) -> tuple[Table, str]:
    """The table at `path`, and the name of its split ("" for a Parquet file)."""
    if isinstance(path, HubDataset):
        return open_dataset(path.repo, spec.name, spec.split, path.commit)
    if kind == "parquet":
        return ParquetTable(path), ""
    return open_dataset(str(path), spec.name, spec.split, spec.revision)


def table_rows(batch: pa.RecordBatch, names: Sequence[str]) -> list[dict[str, Any]]:
    """A mapping per row of the columns in `names`; an unreadable cell holds its BadRowError."""
    columns = [cells(batch.column(name), name) for name in names]
    if not columns:
        return [{} for _ in range(batch.num_rows)]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def cells(array: pa.Array, name: str) -> list[Any]:
    """The values of a column; an unreadable one (text that is not UTF-8) as its BadRowError."""
    try:
        values: list[Any] = array.to_pylist()
        return values
    except (ValueError, OverflowError, pa.ArrowException):
        return [_cell(array, i, name) for i in range(len(array))]


def whole_texts(array: pa.Array) -> list[str] | None:
    """The values of a column of texts; None where one is null, empty or cannot be read."""
    kind = array.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not is_text or array.null_count:
        return None
    try:
        texts: list[str] = array.to_pylist()
    except UnicodeDecodeError:
        return None
    return texts if all(texts) else None


def readable(array: pa.Array, name: str) -> tuple[pa.Array, dict[int, BadRowError]]:
    """The column with null for each cell that cannot be read, and what is wrong with those."""
    try:
        array.validate(full=True)
        return array, {}
    except pa.ArrowInvalid:
        values = cells(array, name)
    bad = {i: value for i, value in enumerate(values) if isinstance(value, BadRowError)}
    good = [None if i in bad else value for i, value in enumerate(values)]
    return pa.array(good, plain(array.type)), bad


def _cell(array: pa.Array, i: int, name: str) -> Any:
    try:
        return array[i].as_py()
    except UnicodeDecodeError as error:
        why = f"the column {name!r} is not valid UTF-8 (byte {error.start + 1})"
    except (ValueError, OverflowError, pa.ArrowException) as error:
        why = f"the column {name!r} cannot be read: {error}"
    return BadRowError("bad_row", why)
