"""Hugging Face datasets on local disk: folders of save_to_disk, and what load_dataset reads.

The datasets library is imported only when a job has such an input: it takes a second.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tightrun.io.input_types import InputError
from tightrun.io.tables import batch_rows

_SAVED = ("state.json", "dataset_dict.json")


class DatasetTable:
    """One split of a dataset, memory-mapped from its Arrow files."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset.with_format("arrow")
        self.schema: pa.Schema = dataset.features.arrow_schema
        self.rows: int = len(dataset)
        self.bytes = sum(Path(file["filename"]).stat().st_size for file in dataset.cache_files)
        self.stamp = (self.rows, self.bytes)

    def batches(self, columns: Sequence[str], start: int = 0) -> Iterator[pa.RecordBatch]:
        """See `Table`."""
        names = [name for name in self.schema.names if name in set(columns)]
        size = batch_rows(self.bytes, self.rows)
        for begin in range(start, self.rows, size):
            table = self._dataset[begin : min(begin + size, self.rows)].select(names)
            yield from table.combine_chunks().to_batches()

    def mean_bytes(self, columns: Sequence[str]) -> np.ndarray:  # noqa: ARG002
        """See `Table`."""
        return np.full(self.rows, self.bytes // max(1, self.rows), np.int64)

    def nearest_start(self, row: int) -> int:
        """See `Table`."""
        return row


def open_dataset(
    path: str, name: str | None = None, split: str | None = None, revision: str | None = None
) -> tuple[DatasetTable, str]:
    """The dataset at the local `path`, or of the hub, and the name of its split.

    The words are those of load_dataset. Raises InputError if it cannot be read, or has several
    splits and none is chosen.
    """
    folder = Path(path)
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        if any((folder / mark).is_file() for mark in _SAVED):
            found = datasets.load_from_disk(path)
        else:
            found = datasets.load_dataset(path, name, split=split, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as a dataset: {error}") from error
    if not isinstance(found, dict):
        return DatasetTable(found), split or "train"
    chosen = _choose_split(path, list(found), split)
    return DatasetTable(found[chosen]), chosen


def _choose_split(path: str, splits: list[str], wanted: str | None) -> str:
    if wanted in splits:
        return str(wanted)
    if wanted is None and len(splits) == 1:
        return splits[0]
    names = ", ".join(splits)
    if wanted is None:
        raise InputError(
            f"{path} has several splits ({names}); choose one with input.dataset and input.split"
        )
    raise InputError(f"input.split: {path} has no split {wanted!r}, only {names}")
