"""What is done about passes that run out of memory, so that the job goes on: narrower batches,
a sequence by itself, and in the end an error row."""

from __future__ import annotations

import time
from collections.abc import Callable

from tightrun.core import RowError, RunNote
from tightrun.policies.caps import RowCap
from tightrun.runtime.memory_failures import MemoryFailure
from tightrun.runtime.sequence import Sequence

# A single row that fails so often is given up. It is tried again with nothing beside it, after a
# while: what took the memory may be over by then.
PAUSES_S = (0.0, 0.1, 0.5, 2.0)
STRIKES = 1 + len(PAUSES_S)
# Passes in a row that may fail before it is believed that no batch is to blame.
MOST_IN_A_ROW = 64
# Narrower batches than this save next to nothing: no reason to shrink further before one fails.
LEAST_ROWS = 16


class Survival:
    """Holds batches to fewer rows after a failure, and lets them grow again after good passes.

    `hold` is told the most rows of a batch whenever that changes. `alone` is a sequence that is to
    be computed with nothing beside it. While memory is `pressed` nothing grows.
    """

    def __init__(
        self,
        widest: int,
        hold: Callable[[int], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.cap = RowCap(widest)
        self.alone: Sequence | None = None
        self.pressed = False
        self._widest = 0  # of the last good pass
        self._hold = hold
        self._pause = pause
        self._strikes = 0
        self._in_a_row = 0
        # What was allowed when a sequence was first in a batch that failed.
        self._allowed: dict[Sequence, int] = {}

    def failed(self, failure: MemoryFailure, note: Callable[[RunNote], None]) -> Sequence | None:
        """Take in a pass that ran out of memory; returns a sequence that cannot be computed, its
        `error` set.

        Raises MemoryError if passes fail again and again and no row is to blame.
        """
        self._in_a_row += 1
        if self._in_a_row > MOST_IN_A_ROW:
            raise MemoryError(
                f"out of memory in {MOST_IN_A_ROW} passes in a row ({failure.reason}); end what "
                "else takes memory here, or lower limits.gpu_memory and limits.cpu_memory so that "
                "less is planned with"
            )
        if failure.rows == 1 and len(failure.sequences) == 1:
            return self._strike(failure, note)
        for sequence in failure.sequences:
            self._allowed.setdefault(sequence, self.cap.rows)
        allowed = self.cap.failed(failure.rows)
        self._hold(allowed)
        note(
            RunNote(
                "out_of_memory",
                f"out of memory{_place(failure)} of a batch of {failure.rows:,} rows: batches are "
                f"held to {allowed:,} from here ({failure.reason})",
                {"where": failure.where, "rows": failure.rows, "held_to": allowed},
            )
        )
        return None

    def passed(self, rows: int, note: Callable[[RunNote], None]) -> None:
        """A pass went well whose widest batch had so many rows."""
        self.alone, self._strikes, self._in_a_row = None, 0, 0
        self._widest = rows
        if not self.cap.holds:
            self._allowed.clear()
        if not self.pressed and self.cap.passed(rows):
            self._hold(self.cap.rows)
            note(
                RunNote(
                    "rows_raised",
                    f"memory has sufficed for a while: batches may have {self.cap.rows:,} rows"
                    + ("" if self.cap.holds else ", as planned"),
                    {"held_to": self.cap.rows},
                )
            )

    def shrink(self) -> int | None:
        """Hold batches to half of what they have now, before one fails; returns to how many rows,
        None if they are narrow already."""
        if self._widest < 2 * LEAST_ROWS:
            return None
        self._hold(self.cap.failed(self._widest))
        return self.cap.rows

    def _strike(self, failure: MemoryFailure, note: Callable[[RunNote], None]) -> Sequence | None:
        [sequence] = failure.sequences
        self._strikes = self._strikes + 1 if sequence is self.alone else 1
        self.alone = sequence
        if self._strikes < STRIKES:
            note(
                RunNote(
                    "out_of_memory",
                    f"out of memory{_place(failure)} of a single token of row "
                    f"{sequence.request.id}: it is tried again with nothing beside it "
                    f"({failure.reason})",
                    {"where": failure.where, "rows": 1, "held_to": self.cap.rows},
                )
            )
            self._pause(PAUSES_S[self._strikes - 1])
            return None
        self.alone, self._strikes, self._in_a_row = None, 0, 0
        self._hold(self.cap.acquit(self._allowed.pop(sequence, 1)))
        sequence.error = RowError(
            "oom",
            f"there is no memory to compute even one token of this row at a time, after "
            f"{sequence.computed:,} of its {len(sequence.tokens):,} tokens ({failure.reason})",
        )
        sequence.finish_reason = "error"
        note(
            RunNote(
                "row_out_of_memory",
                f"row {sequence.request.id} cannot be computed for want of memory: it is an error "
                f"row, and batches may have {self.cap.rows:,} rows again",
                {"id": sequence.request.id, "held_to": self.cap.rows},
            )
        )
        return sequence


def _place(failure: MemoryFailure) -> str:
    return f" in {failure.where}" if failure.where else ""
