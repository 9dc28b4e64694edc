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
from tightrun.io.journal import RowJournal
from tightrun.io.output_place import OutputPlace
from tightrun.io.row_record import Finished
from tightrun.io.seal import Content, Seal

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
    when the shard is written, and `spool` takes them from a chunk. `columns` names those of the
    output with their types, where they depend on the input.
    """

    suffix: str
    spooled: pa.Schema

    @property
    def columns(self) -> dict[str, str]: ...

    def spool(self, chunk: InputChunk) -> pa.Table: ...

    def write(
        self, pieces: Iterable[Piece], file: DiskFile, errors: DiskFile | None, stamp: Stamp
    ) -> None:
        """Writes the rows of a shard; those that failed also to `errors`, where that is asked."""

    def is_whole(self, path: Path, stamp: Stamp) -> bool:
        """Whether a file says of itself what `stamp` says, as far as the format has a word for it.

        Its bytes are known to be those that were written.
        """


class OpenShard:
    """The journal and the spooled columns of a shard that is not yet written.

    `span` are the row indices that belong to it, and `rows` those of them that this run takes:
    fewer where it ends before the input does. A journal that an earlier run has left is gone on
    with; the columns of all `rows` are to be admitted once more. Not thread-safe.
    """

    def __init__(
        self,
        disk: Disk,
        place: OutputPlace,
        index: int,
        rows: range,
        span: range,
        form: ShardFormat,
        fingerprint: str,
    ) -> None:
        self.index = index
        self.rows = rows
        self._span = span
        self._disk = disk
        self._place = place
        self._form = form
        self._fingerprint = fingerprint
        self._journal = RowJournal(disk, place.row_journal(index), span, fingerprint)
        self._missing = len(rows) - self._journal.done(rows)
        self._not_admitted = len(rows)
        self._spool = ColumnSpool(disk, place.column_spool(index), form.spooled)

    @property
    def complete(self) -> bool:
        """Whether every row of the shard has finished, and its columns are here."""
        return not self._missing and not self._not_admitted

    def admit(self, chunk: InputChunk) -> None:
        """Keeps what will be needed of the chunk's columns."""
        self._spool.add(chunk.start, chunk.rows, chunk.source_file, self._form.spool(chunk))
        self._not_admitted -= chunk.rows

    def append(self, finished: Finished) -> None:
        """Adds a finished row."""
        self._journal.append(finished)
        self._missing -= 1

    def seal(self) -> Seal:
        """Writes the shard and notes what was written.

        Afterwards the journal is gone; if writing fails, it is as it was. The journal of a shard
        that ends before its span does stays, for a run that takes more rows.
        """
        assert self.complete
        errors = self._journal.errors(self.rows)
        stamp = Stamp(self._fingerprint, self.rows.start, len(self.rows), errors.total())
        path, failed_path = self._place.shard(self.index, self._form.suffix), None
        failed: DiskFile | None = None
        with ExitStack() as files:
            # Left in reverse order: the shard gets its name last, and says that all is there.
            main = files.enter_context(self._disk.whole(path))
            if failed_path := self._place.shard_errors(self.index):
                failed = files.enter_context(self._disk.whole(failed_path))
            self._form.write(self._pieces(), main, failed, stamp)
        content = Content(main.size, main.crc32)
        of_failed = Content(failed.size, failed.crc32) if failed else Content()
        about = (stamp.fingerprint, stamp.first_row, stamp.rows, dict(errors))
        seal = Seal(*about, content, of_failed)
        seal.write(self._disk, self._place.seal(self.index))
        self._spool.remove()
        if self.rows == self._span:
            self._journal.remove()
        else:
            self._journal.sync()
            self._journal.close()
        return seal

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
