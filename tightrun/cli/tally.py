"""Counts of the rows that finished: tokens, failures by code, and one example of each."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

from tightrun.core import Completion, Request


class Tally:
    """Thread-safe totals; the reader's error rows and the engine's rows both end here.

    `earlier` counts the rows that other runs have done, before or beside this one, and the errors
    of those that failed; they are part of `done`, `failed` and `errors`. All else is of this run:
    `output_tokens` of a row that an earlier run began are those it drew itself.
    """

    def __init__(self, earlier: int = 0, errors: Mapping[str, int] | None = None) -> None:
        self._lock = threading.Lock()
        self._errors: Counter[str] = Counter()
        self._own = 0
        self.of_others(earlier, errors or {})
        self.input_tokens = 0
        self.output_tokens = 0
        self.examples: dict[str, str] = {}
        self._drawn_before: dict[int, int] = {}

    def of_others(self, rows: int, errors: Mapping[str, int]) -> None:
        """So many rows are done by other runs by now, and ended with these errors."""
        self.earlier, self._earlier_errors = rows, Counter(errors)

    @property
    def done(self) -> int:
        return self.earlier + self._own

    @property
    def errors(self) -> Counter[str]:
        """How many rows ended with each error."""
        return self._earlier_errors + self._errors

    @property
    def earlier_failed(self) -> int:
        return self._earlier_errors.total()

    @property
    def failed(self) -> int:
        return self.earlier_failed + self.own_failed

    @property
    def own_failed(self) -> int:
        """Rows of this run that failed."""
        return self._errors.total()

    @property
    def own(self) -> int:
        """Rows of this run that are done."""
        return self._own

    def begun(self, request: Request) -> None:
        """Takes note of what an earlier run has drawn of a row that runs now."""
        if request.written:
            drawn = sum(len(part.tokens) for part in request.written)
            with self._lock:
                self._drawn_before[request.row_index] = drawn

    def add(self, completion: Completion) -> None:
        """Counts one finished row."""
        with self._lock:
            self._own += 1
            self.input_tokens += completion.prompt_tokens
            before = self._drawn_before.pop(completion.row_index, 0)
            drawn = sum(s.completion_tokens for s in completion.samples)
            self.output_tokens += max(0, drawn - before)
            if completion.error is not None:
                self._errors[completion.error.code] += 1
                example = f"row {completion.id}: {completion.error.for_logs}"
                self.examples.setdefault(completion.error.code, example)
