"""How many rows a batch may have once one has run out of memory: halved at once, raised slowly."""

from __future__ import annotations

from dataclasses import dataclass, field

# Good passes before a cap is raised; twice as many after a raise that was too much, so that a
# cap does not swing: a job of a million passes tries in vain a dozen times.
PATIENCE = 64
MOST_PATIENCE = 2**14
# A raise is by a quarter.
RAISE = 1.25


@dataclass(slots=True)
class RowCap:
    """The most rows of a batch: those it computes, with those it computes again.

    `widest` is what the plan makes at the most, `rows` what is allowed now.
    """

    widest: int
    rows: int = field(default=0)
    _patience: int = PATIENCE
    _good: int = 0
    _proven: int = 0  # rows that went well before the last raise; 0: there was none since

    def __post_init__(self) -> None:
        self.rows = self.rows or self.widest

    @property
    def holds(self) -> bool:
        """Whether batches are held to less than the plan would make them."""
        return self.rows < self.widest

    def failed(self, rows: int) -> int:
        """A batch of `rows` rows ran out of memory; returns what is allowed from now on.

        Half of them; after a raise, what had gone well before it.
        """
        width = max(1, min(rows, self.rows))
        if 0 < self._proven < width:
            self.rows = self._proven
            self._patience = min(MOST_PATIENCE, 2 * self._patience)
        else:
            self.rows = max(1, width // 2)
        self._good = self._proven = 0
        return self.rows

    def passed(self, rows: int) -> bool:
        """A pass went well whose widest batch had `rows` rows; whether more is allowed now.

        Passes that were not half as wide as they might have been prove nothing.
        """
        if not self.holds or 2 * rows < self.rows:
            return False
        self._good += 1
        if self._good < self._patience:
            return False
        self._good, self._proven = 0, self.rows
        self.rows = min(self.widest, max(self.rows + 1, int(RAISE * self.rows)))
        return True

    def acquit(self, rows: int) -> int:
        """What failed since `rows` were allowed was the fault of a single row, however wide its
        batch: allows as many again."""
        self.rows = max(self.rows, min(rows, self.widest))
        self._good = self._proven = 0
        return self.rows
