"""Counts of the rows that finished: tokens, failures by code, and one example of each."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

from tightrun.core import Completion, Request


class Tally:
    """Thread-safe totals; the reader's error rows and the engine's rows both end here.

    `earlier` counts the rows that earlier runs have done and the errors of those that failed; they
    are part of `done`, `failed` and `errors`. All else is of this run: `output_tokens` of a row
    that an earlier run began are those it drew itself.
    """

    def __init__(self, earlier: int = 0, errors: Mapping[str, int] | None = None) -> None:
        self._lock = threading.Lock()
        self.errors = Counter(errors or {})
        self.earlier, self.earlier_failed = earlier, self.errors.total()
        self.done, self.failed = earlier, self.earlier_failed
        self.input_tokens = 0
        self.output_tokens = 0
        self.examples: dict[str, str] = {}
        self._drawn_before: dict[int, int] = {}

    def begun(self, request: Request) -> None:
        """Takes note of what an earlier run has drawn of a row that runs now."""
        if request.written:
            drawn = sum(len(part.tokens) for part in request.written)
            with self._lock:
                self._drawn_before[request.row_index] = drawn

    def add(self, completion: Completion) -> None:
        """Counts one finished row."""
        with self._lock:
            self.done += 1
            self.input_tokens += completion.prompt_tokens
            before = self._drawn_before.pop(completion.row_index, 0)
            drawn = sum(s.completion_tokens for s in completion.samples)
            self.output_tokens += max(0, drawn - before)
            if completion.error is not None:
                self.failed += 1
                self.errors[completion.error.code] += 1
                example = f"row {completion.id}: {completion.error.message}"
                self.examples.setdefault(completion.error.code, example)
