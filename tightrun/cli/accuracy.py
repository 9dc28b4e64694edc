"""Exact-match accuracy against an input column named `expected`, as rows finish."""

from __future__ import annotations

import threading
from collections.abc import Container

import pyarrow as pa

from tightrun.cli.summary import Accuracy
from tightrun.core import Completion
from tightrun.io.inputs import InputChunk

COLUMN = "expected"


class Marking:
    """Compares texts with what was expected of them.

    Only a hash is held per row, and only while the row is open, so that memory follows the
    window and not the input.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}
        self._right = 0
        self._rows = 0

    def expect(self, chunk: InputChunk, rows: Container[int]) -> None:
        """Takes the expectations of those of the chunk's rows that are in `rows`, before they are
        handed on; null is no expectation."""
        if COLUMN not in chunk.columns.column_names:
            return
        answers = chunk.columns.column(COLUMN)
        if not (pa.types.is_string(answers.type) or pa.types.is_large_string(answers.type)):
            return
        with self._lock:
            for item, answer in zip(chunk.items, answers.to_pylist(), strict=True):
                if answer is not None and item.row_index in rows:
                    self._open[item.row_index] = hash(answer.strip())

    def mark(self, completion: Completion) -> None:
        """Counts a finished row; a failed one is not right."""
        with self._lock:
            expected = self._open.pop(completion.row_index, None)
            if expected is None:
                return
            self._rows += 1
            if completion.samples and hash(completion.samples[0].text.strip()) == expected:
                self._right += 1

    def result(self) -> Accuracy | None:
        """The accuracy so far; None where nothing was expected."""
        with self._lock:
            return Accuracy(self._right, self._rows) if self._rows else None
