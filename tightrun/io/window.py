"""The bounded window of rows at work, shared by who reads the input and who writes the output.

Rows finish in any order, and a shard is written when all of its rows are in; so how far the
reader may run ahead is what bounds memory and the disk space of the journal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

OPEN_SHARDS = 4
OPEN_ROWS = 65_536
_POLL_S = 0.1


class Window:
    """Opens few shards at a time, and admits a row of theirs when no row before it lags.

    Rows `[i * shard_rows, (i + 1) * shard_rows)` are shard `i`. Shards are opened in the order in
    which they are read, whatever that is. Any method may be called from any thread. Each row is to
    be reported as finished once, and each shard as sealed once, after all of its rows.
    """

    def __init__(
        self,
        shard_rows: int,
        *,
        open_shards: int = OPEN_SHARDS,
        open_rows: int = OPEN_ROWS,
    ) -> None:
        assert shard_rows > 0
        assert open_shards > 0
        assert open_rows > 0
        self._shard_rows = shard_rows
        self._open_shards = open_shards
        self._changed = threading.Condition()
        # Rows have places in the order of reading: what to add to a row of each open shard.
        self._shifts: dict[int, int] = {}
        self._next_place = 0
        # A ring: places of rows that finished before the oldest unfinished one did.
        self._done = bytearray(open_rows)
        self._oldest = 0
        self._abandoned = False

    def wait_to_open(self, stop: threading.Event) -> bool:
        """Blocks until one more shard may be opened. False when stopped or abandoned before."""
        return self._wait(lambda: len(self._shifts) < self._open_shards, stop)

    def open(self, rows: range) -> None:
        """Opens the shard of these rows, which are read next; one that is open already stays so."""
        with self._changed:
            shard = rows.start // self._shard_rows
            if shard not in self._shifts:
                self._shifts[shard] = self._next_place - rows.start
                self._next_place += len(rows)

    def wait_for_room(self, row_index: int, stop: threading.Event) -> bool:
        """Blocks until a row of an open shard may be admitted. False when stopped or abandoned."""
        place = self._place(row_index)
        return self._wait(lambda: place < self._oldest + len(self._done), stop)

    def finished(self, row_index: int) -> None:
        """Says that a row has come to its end, good or bad."""
        with self._changed:
            ring, place = len(self._done), self._place(row_index)
            assert place < self._oldest + ring, f"row {row_index} was not admitted"
            done = place < self._oldest or self._done[place % ring]
            assert not done, f"row {row_index} finished twice"
            self._done[place % ring] = 1
            while self._done[self._oldest % ring]:
                self._done[self._oldest % ring] = 0
                self._oldest += 1
            self._changed.notify_all()

    def sealed(self, shard: int) -> None:
        """Says that a shard is on the disk under its final name."""
        with self._changed:
            assert shard in self._shifts, f"shard {shard} sealed twice, or never opened"
            del self._shifts[shard]
            self._changed.notify_all()

    def abandon(self) -> None:
        """Lets the reader go: nothing more can be written."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def _place(self, row_index: int) -> int:
        shard = row_index // self._shard_rows
        assert shard in self._shifts, f"row {row_index} is of no open shard"
        return row_index + self._shifts[shard]

    def _wait(self, is_so: Callable[[], bool], stop: threading.Event) -> bool:
        with self._changed:
            while not (stop.is_set() or self._abandoned):
                if is_so():
                    return True
                self._changed.wait(_POLL_S)
            return False
