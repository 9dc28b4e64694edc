"""A shard on its way: its rows gather in any order, then it is written whole, in input order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

from tightrun.io.column_spool import ColumnSpool, Kept
from tightrun.io.durable import Disk, DiskFile
from tightrun.io.input_types import InputChunk
from tightrun.io.journal import Finished, RowJournal

PIECE_ROWS = 1_000
PIECE_BYTES = 4 << 20


class Piece(NamedTuple):
    """Consecutive rows of one source file, finished, with their kept columns."""

    finished: list[Finished]
    kept: Kept


class Stamp(NamedTuple):
    """What a shard says about itself, so that a later run knows it as its own and as whole."""

    fingerprint: str
    first_row: int
    rows: int
    failed: int


class ShardFormat(Protocol):
    """How finished rows become a file.

    `suffix` ends the file's name. `spooled` are the columns of the input that are needed again
    when the shard is written, and `spool` takes them from a chunk.
    """

    suffix: str
    spooled: pa.Schema

    def spool(self, chunk: InputChunk) -> pa.Table: ...

    def write(
        self, pieces: Iterable[Piece], file: DiskFile, errors: DiskFile | None, stamp: Stamp
    ) -> None:
        """Writes the rows of a shard; those that failed also to `errors`, where that is asked."""


class OpenShard:
    """The journal and the spooled columns of a shard that is not yet written.

    `rows` are the row indices that belong to it. Not thread-safe.
    """

    def __init__(
        self, disk: Disk, folder: Path, index: int, rows: range, form: ShardFormat
    ) -> None:
        self.index = index
        self.rows = rows
        self._disk = disk
        self._form = form
        self._journal = RowJournal(disk, folder / f"rows-{index:05d}.bin", rows)
        self._spool = ColumnSpool(disk, folder / f"columns-{index:05d}.arrow", form.spooled)

    @property
    def complete(self) -> bool:
        """Whether every row of the shard has finished."""
        return self._journal.missing == 0

    @property
    def failed(self) -> int:
        """Finished rows that have an error."""
        return self._journal.failed

    def admit(self, chunk: InputChunk) -> None:
        """Keeps what will be needed of the chunk's columns."""
        self._spool.add(chunk.start, chunk.rows, chunk.source_file, self._form.spool(chunk))

    def append(self, finished: Finished) -> None:
        """Adds a finished row."""
        self._journal.append(finished)

    def seal(self, path: Path, errors: Path | None, fingerprint: str) -> int:
        """Writes the shard to `path`, failed rows also to `errors`; returns its bytes.

        Afterwards the journal is gone; if writing fails, it is as it was.
        """
        assert self.complete
        stamp = Stamp(fingerprint, self.rows.start, len(self.rows), self.failed)
        with ExitStack() as files:
            # Left in reverse order: the shard gets its name last, and says that all is there.
            main = files.enter_context(self._disk.whole(path))
            failed = files.enter_context(self._disk.whole(errors)) if errors else None
            self._form.write(self._pieces(), main, failed, stamp)
            size = main.size
        self._journal.remove()
        self._spool.remove()
        return size

    def sync(self) -> None:
        """Returns when all that came so far is on the disk."""
        self._journal.sync()
        self._spool.sync()

    def close(self) -> None:
        """Closes the shard as it stands; its journal stays on the disk."""
        self._journal.close()
        self._spool.close()

    def abandon(self) -> None:
        """Closes after a failure, writing nothing more."""
        self._journal.abandon()
        self._spool.abandon()

    def _pieces(self) -> Iterator[Piece]:
        next_row = self.rows.start
        for kept in self._spool.read():
            assert kept.start == next_row, f"shard {self.index}: row {next_row} was not admitted"
            next_row += kept.rows
            for rows in self._journal.pieces(range(kept.start, next_row), PIECE_ROWS, PIECE_BYTES):
                yield Piece(self._journal.read(rows), kept.part(rows))
        assert next_row == self.rows.stop, f"shard {self.index}: row {next_row} was not admitted"
