"""Counts of the rows that finished: tokens, failures by code, and one example of each."""

from __future__ import annotations

import threading
from collections import Counter

from tightrun.core import Completion


class Tally:
    """Thread-safe totals; the reader's error rows and the engine's rows both end here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.done = 0
        self.failed = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.errors: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, completion: Completion) -> None:
        """Counts one finished row."""
        with self._lock:
            self.done += 1
            self.input_tokens += completion.prompt_tokens
            self.output_tokens += sum(s.completion_tokens for s in completion.samples)
            if completion.error is not None:
                self.failed += 1
                self.errors[completion.error.code] += 1
                example = f"row {completion.id}: {completion.error.message}"
                self.examples.setdefault(completion.error.code, example)
