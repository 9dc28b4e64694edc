"""The bounded window of rows at work, shared by who reads the input and who writes the output.

Rows finish in any order, and a shard is written when all of its rows are in; so how far the
reader may run ahead is what bounds memory and the disk space of the journal.
"""

from __future__ import annotations

import threading
from collections.abc import Set

OPEN_SHARDS = 4
OPEN_ROWS = 65_536
_POLL_S = 0.1


class Window:
    """Admits a row when its shard is among the oldest open ones and no row before it lags.

    Rows `[i * shard_rows, (i + 1) * shard_rows)` are shard `i`; `total_rows` are expected, those of
    the shards in `sealed` not: an earlier run has written them. Any method may be called from any
    thread. Each row is to be reported as finished once, and each shard as sealed once, after all
    of its rows.
    """

    def __init__(
        self,
        shard_rows: int,
        total_rows: int,
        *,
        sealed: Set[int] = frozenset(),
        open_shards: int = OPEN_SHARDS,
        open_rows: int = OPEN_ROWS,
    ) -> None:
        assert shard_rows > 0
        assert open_shards > 0
        assert open_rows > 0
        self._shard_rows = shard_rows
        self._total_rows = total_rows
        self._open_shards = open_shards
        self._changed = threading.Condition()
        # A ring: rows that finished before the oldest unfinished one did.
        self._done = bytearray(open_rows)
        self._oldest_row = 0
        self._oldest_shard = 0
        self._sealed_before = sealed
        self._sealed = set(sealed)
        self._abandoned = False
        self._pass_done_rows()
        self._pass_sealed_shards()
        self._row_limit = self._next_row_limit()

    @property
    def shards(self) -> int:
        """How many shards there will be."""
        return -(-self._total_rows // self._shard_rows)

    @property
    def oldest_unfinished(self) -> int:
        """The lowest row that has not finished; the number of rows when all have."""
        with self._changed:
            return self._oldest_row

    @property
    def row_limit(self) -> int:
        """The first row that would have to wait."""
        with self._changed:
            return self._row_limit

    def rows_of(self, shard: int) -> range:
        """The rows that belong to a shard."""
        first = shard * self._shard_rows
        return range(first, min(first + self._shard_rows, self._total_rows))

    def wait_for_room(self, row_index: int, stop: threading.Event) -> bool:
        """Blocks until the row may be admitted. False when stopped or abandoned before that."""
        with self._changed:
            while row_index >= self._row_limit:
                if stop.is_set() or self._abandoned:
                    return False
                self._changed.wait(_POLL_S)
            return not (stop.is_set() or self._abandoned)

    def finished(self, row_index: int) -> None:
        """Says that a row has come to its end, good or bad."""
        with self._changed:
            ring = len(self._done)
            assert self._oldest_row <= row_index < self._oldest_row + ring, row_index
            assert not self._done[row_index % ring], f"row {row_index} finished twice"
            self._done[row_index % ring] = 1
            self._pass_done_rows()
            self._update()

    def sealed(self, shard: int) -> None:
        """Says that a shard is on the disk under its final name."""
        with self._changed:
            assert shard >= self._oldest_shard, f"shard {shard} sealed twice"
            self._sealed.add(shard)
            self._pass_sealed_shards()
            self._update()

    def abandon(self) -> None:
        """Lets the reader go: nothing more can be written."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def _pass_done_rows(self) -> None:
        ring = len(self._done)
        while self._oldest_row < self._total_rows:
            shard = self._oldest_row // self._shard_rows
            if shard in self._sealed_before:
                self._oldest_row = self.rows_of(shard).stop
            elif self._done[self._oldest_row % ring]:
                self._done[self._oldest_row % ring] = 0
                self._oldest_row += 1
            else:
                return

    def _pass_sealed_shards(self) -> None:
        while self._oldest_shard in self._sealed:
            self._sealed.remove(self._oldest_shard)
            self._oldest_shard += 1

    def _update(self) -> None:
        limit = self._next_row_limit()
        if limit != self._row_limit:
            self._row_limit = limit
            self._changed.notify_all()

    def _next_row_limit(self) -> int:
        shard, still_open = self._oldest_shard, 0
        while True:
            still_open += shard not in self._sealed
            shard += 1
            if still_open == self._open_shards:
                break
        return min(shard * self._shard_rows, self._oldest_row + len(self._done))
