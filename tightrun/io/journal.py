"""The journal of a shard: its finished rows, in the order they finished, until it is sealed."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import orjson

from tightrun.io.durable import Disk, DiskFile
from tightrun.io.frames import ABOUT, MAGIC, FrameFile, pack_frame, unpack_frame
from tightrun.io.row_record import (
    FINISHED_ROW,
    GOOD,
    Finished,
    decode_row,
    encode_row,
    error_code,
    result_of,
    summary_of,
)

# A row that is to be done again: its index, and which attempt that is.
RETRIED = b"A"


@dataclass(slots=True)
class RowIndex:
    """Where the rows of a shard stand in its journal, 13 bytes for each.

    `results` are those of `result_of`, 0 for a row that is not there; `offsets` and `lengths` are
    of its frame. All arrays are [rows].
    """

    offsets: np.ndarray
    lengths: np.ndarray
    results: np.ndarray

    @classmethod
    def of(cls, rows: int) -> Self:
        """An index with no row in it."""
        return cls(np.zeros(rows, np.int64), np.zeros(rows, np.uint32), np.zeros(rows, np.uint8))

    def errors(self, rows: slice) -> Counter[str]:
        """How many of these rows ended with each error."""
        numbers = np.bincount(self.results[rows], minlength=GOOD + 1)
        return Counter(
            {
                str(error_code(result)): int(numbers[result])
                for result in range(GOOD + 1, len(numbers))
                if numbers[result]
            }
        )


@dataclass(frozen=True, slots=True)
class JournalReading:
    """What a journal file holds: the index of its rows, up to where it is good.

    `ours` is False if it is of other rows or of another job. `attempts` are those of rows that were
    to be done again, whether or not they were. `complaint` is for the person.
    """

    index: RowIndex
    ours: bool
    good_bytes: int
    complaint: str | None
    attempts: Mapping[int, int]


def read_journal(path: Path, rows: range, fingerprint: str) -> JournalReading:
    """Reads which of `rows` a journal file holds. Of a row that stands twice the first counts."""
    file = FrameFile(path)
    places, offsets, lengths, results = array("q"), array("q"), array("I"), array("B")
    ours = False
    attempts: dict[int, int] = {}
    for frame in file:
        if frame.kind == FINISHED_ROW and ours:
            row, result = summary_of(frame.payload)
            assert row in rows, f"{path} has row {row:,}, and is of {rows}"
            places.append(row - rows.start)
            offsets.append(frame.offset)
            lengths.append(frame.nbytes)
            results.append(result)
        elif frame.kind == RETRIED and ours:
            row, attempt = orjson.loads(frame.payload)
            attempts[row] = attempt
        elif frame.kind == ABOUT:
            ours = orjson.loads(frame.payload) == _about(rows, fingerprint)
    index = RowIndex.of(len(rows))
    # Backwards, so that the first of two is what stays.
    where = np.array(places, np.int64)[::-1]
    index.offsets[where] = np.array(offsets, np.int64)[::-1]
    index.lengths[where] = np.array(lengths, np.uint32)[::-1]
    index.results[where] = np.array(results, np.uint8)[::-1]
    return JournalReading(index, ours, file.good_bytes, file.complaint, attempts)


class RowJournal:
    """The finished rows of one shard in a file; one that is there already is gone on with.

    `rows` are the row indices that belong to the shard. A file that is there must be of these rows
    and this job; what of it is not good is cut off. Not thread-safe.
    """

    def __init__(self, disk: Disk, path: Path, rows: range, fingerprint: str) -> None:
        self.path = path
        self.rows = rows
        self._disk = disk
        self._index = RowIndex.of(len(rows))
        if path.exists():
            reading = read_journal(path, rows, fingerprint)
            assert reading.ours, f"{path} is not the journal of rows {rows.start:,} and on"
            disk.truncate(path, reading.good_bytes)
            self._index = reading.index
        self._file = disk.append(path)
        self._dirty = True
        if not self._file.size:
            begin_journal(self._file, rows, fingerprint)

    def done(self, rows: range) -> int:
        """How many of these rows have finished."""
        return int(np.count_nonzero(self._index.results[self._places(rows)]))

    def errors(self, rows: range) -> Counter[str]:
        """How many of these rows have ended with each error."""
        return self._index.errors(self._places(rows))

    def append(self, finished: Finished) -> None:
        """Adds a row of the shard; each one once."""
        row = finished.completion
        place = row.row_index - self.rows.start
        assert 0 <= place < len(self.rows), f"row {row.row_index} is elsewhere"
        assert not self._index.results[place], f"row {row.row_index} finished twice"
        frame = pack_frame(FINISHED_ROW, encode_row(finished))
        self._index.offsets[place] = self._file.size
        self._index.lengths[place] = len(frame)
        self._index.results[place] = result_of(row.error)
        self._file.write(frame)
        self._dirty = True

    def read(self, rows: range) -> list[Finished]:
        """Finished rows, in input order."""
        first = self.rows.start
        found = []
        for row in rows:
            offset, length = self._index.offsets[row - first], self._index.lengths[row - first]
            body = unpack_frame(self._file.read_at(int(offset), int(length)))
            if body is None:
                raise OSError(f"{self.path}: row {row} does not read back as it was written")
            found.append(decode_row(body[1:]))
        return found

    def pieces(self, rows: range, max_rows: int, max_bytes: int) -> Iterator[range]:
        """`rows` cut so that a piece has at most so many rows and, if it can, so many bytes."""
        start = rows.start
        while start < rows.stop:
            stop = min(start + max_rows, rows.stop)
            lengths = self._index.lengths[start - self.rows.start : stop - self.rows.start]
            fit = int(np.searchsorted(np.cumsum(lengths, dtype=np.int64), max_bytes, side="right"))
            stop = start + max(1, min(fit, stop - start))
            yield range(start, stop)
            start = stop

    def sync(self) -> None:
        """Returns when every row so far is on the disk."""
        if self._dirty:
            self._file.sync()
            self._dirty = False

    def close(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        """Closes after a failure; what had reached the disk stays there."""
        self._file.abandon()

    def remove(self) -> None:
        """Removes the file: the shard is sealed."""
        self._dirty = False
        self._file.abandon()
        self._disk.remove(self.path)

    def _places(self, rows: range) -> slice:
        return slice(rows.start - self.rows.start, rows.stop - self.rows.start)


def begin_journal(file: DiskFile, rows: range, fingerprint: str) -> None:
    """Writes how the journal of a shard begins."""
    file.write(MAGIC)
    file.write(pack_frame(ABOUT, orjson.dumps(_about(rows, fingerprint))))


def _about(rows: range, fingerprint: str) -> dict[str, object]:
    """What the first frame says, so that the file explains itself."""
    return {"fingerprint": fingerprint, "first_row": rows.start, "rows": len(rows)}
