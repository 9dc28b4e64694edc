"""What earlier runs of a job have done, as far as it can still be trusted.

A sealed shard counts when its bytes are those that were written, a row of a journal when its frame
is good. What cannot be trusted is put out of the way and said, and its rows run again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from tightrun.core import Completion, Request
from tightrun.io.durable import Disk
from tightrun.io.journal import read_journal
from tightrun.io.output_place import OutputPlace
from tightrun.io.seal import Seal, content_of, read_seal
from tightrun.io.shard import ShardFormat, Stamp
from tightrun.io.single_file import Parts
from tightrun.io.token_journal import Begun, read_tokens

_READERS = 4
_NOTHING = np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a job's rows lie in shards: `rows` of its `all_rows` are taken by this run."""

    fingerprint: str
    shard_rows: int
    rows: int
    all_rows: int

    def rows_of(self, shard: int) -> range:
        """The rows of a shard that this run takes."""
        return self._cut(shard, self.rows)

    def span_of(self, shard: int) -> range:
        """All rows that belong to a shard."""
        return self._cut(shard, self.all_rows)

    @property
    def shards(self) -> int:
        """How many shards this run's rows are in."""
        return -(-self.rows // self.shard_rows)

    def _cut(self, shard: int, rows: int) -> range:
        first = shard * self.shard_rows
        return range(first, min(first + self.shard_rows, rows))


@dataclass(slots=True)
class EarlierRows:
    """The rows that need not run: those of `sealed` shards, and the journaled ones of others.

    `journaled` has a bit for each row of a shard that is begun. `done` counts rows this run would
    otherwise take, `errors` those of them that failed, by code. `begun` are the tokens of rows that
    are not done, `attempts` which attempt is theirs where it is not the first. `complaints` are for
    the person.
    """

    layout: Layout
    parts: Parts
    sealed: set[int] = field(default_factory=set)
    journaled: dict[int, np.ndarray] = field(default_factory=dict)
    done: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    begun: Begun = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    _counted: dict[int, tuple[int, Mapping[str, int]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, shard: int, rows: int, errors: Mapping[str, int]) -> None:
        """So many rows of a shard are done, and ended with these errors; what was counted of it
        before counts no more. Thread-safe."""
        with self._lock:
            rows_before, errors_before = self._counted.pop(shard, (0, {}))
            self.done += rows - rows_before
            # Whoever reads the counts has a whole one.
            self.errors = self.errors + Counter(errors) - Counter(errors_before)
            if shard not in self.sealed:
                self._counted[shard] = (rows, errors)

    def take_sealed(self, shard: int, seal: Seal) -> None:
        """The shard of this seal is done."""
        self.sealed.add(shard)
        self.count(shard, len(self.layout.rows_of(shard)), seal.errors)

    def unseal(self, shard: int, seal: Seal) -> None:
        """The shard of this seal, which was done, is to be done again, or part of it."""
        self.sealed.discard(shard)
        self._counted[shard] = (len(self.layout.rows_of(shard)), seal.errors)

    def to_do(self) -> Iterator[int]:
        """The shards that are not sealed, in the order of the input."""
        return (shard for shard in range(self.layout.shards) if shard not in self.sealed)

    def done_of(self, rows: range) -> list[int]:
        """Which of these rows, all of one shard, are in its journal."""
        shard, place = divmod(rows.start, self.layout.shard_rows)
        bits = np.unpackbits(self.journaled.get(shard, _NOTHING))[place : place + len(rows)]
        return [rows.start + int(at) for at in np.flatnonzero(bits)]

    def is_done(self, row: int) -> bool:
        """Whether the row need not run."""
        shard = row // self.layout.shard_rows
        return shard in self.sealed or bool(self.done_of(range(row, row + 1)))

    def with_written(self, item: Request | Completion) -> Request | Completion:
        """A request with what an earlier run has drawn of it, and its attempt; it is told once."""
        attempt = self.attempts.pop(item.row_index, item.attempt)
        pieces = self.begun.pop(item.row_index, {})
        if isinstance(item, Completion) or (attempt == item.attempt and not pieces):
            return replace(item, attempt=attempt) if attempt != item.attempt else item
        written = tuple(piece.written() for piece in pieces.values())
        return replace(item, written=written, attempt=attempt)


def find_earlier_rows(
    place: OutputPlace, layout: Layout, form: ShardFormat, disk: Disk
) -> EarlierRows:
    """Looks at all that earlier runs have left at `place`; it must be of the same job.

    Afterwards every journal in the folder can be gone on with, and every seal is true.
    """
    seals, complaints = _read_seals(place, layout, disk)
    found = EarlierRows(layout, Parts.of(place, form.suffix, seals), complaints=complaints)
    check = partial(_is_true, found.parts, form)
    with ThreadPoolExecutor(_READERS) as pool:
        verdicts = dict(zip(seals, pool.map(check, seals.items()), strict=True))
    for shard in (shard for shard, good in verdicts.items() if good):
        found.take_sealed(shard, seals[shard])
    bad = [shard for shard, good in verdicts.items() if not good]
    if bad:
        # While every seal is there: they tell where in a joined file the good shards lie.
        found.parts.restore(disk, found.sealed)
        _put_away(bad, found, disk)
    for path in sorted(place.journal.glob("rows-*.bin")):
        take_journal(path, found, disk)
    for path in sorted(place.journal.glob("columns-*")):
        disk.remove(path)
    begun, complaints = read_tokens(place.journal, layout.fingerprint)
    found.begun = {row: begun[row] for row in begun if not found.is_done(row)}
    found.complaints += complaints
    return found


def _read_seals(
    place: OutputPlace, layout: Layout, disk: Disk
) -> tuple[dict[int, Seal], list[str]]:
    """The seals of the shards of this run that may be enough for it, and complaints."""
    seals: dict[int, Seal] = {}
    complaints = []
    for path in sorted(place.seals.glob("train-*.bin")):
        shard = _number(path)
        if shard >= layout.shards:
            continue
        seal = read_seal(path)
        if seal is None:
            complaints.append(f"{path.name}, a shard's seal, is damaged; its rows run again")
        elif seal.fingerprint == layout.fingerprint:
            # A shard that ends too early was written by a run of fewer rows; its journal has them.
            if seal.rows >= len(layout.rows_of(shard)):
                seals[shard] = seal
            continue
        disk.remove(path)
    return seals, complaints


def _is_true(parts: Parts, form: ShardFormat, item: tuple[int, Seal]) -> bool:
    """Whether a shard is still what its seal says."""
    shard, seal = item
    stamp = Stamp(seal.fingerprint, seal.first_row, seal.rows, sum(seal.errors.values()))
    for part, content in zip(parts.of_shard(shard), (seal.content, seal.failed), strict=False):
        if part is None or content_of(*part) != content:
            return False
    path = parts.place.shard(shard, form.suffix)
    return not path.exists() or form.is_whole(path, stamp)


def _put_away(shards: list[int], found: EarlierRows, disk: Disk) -> None:
    """Moves what is not what its seal says out of the output, so that nobody takes it."""
    parts, place = found.parts, found.parts.place
    for shard, part in [(shard, parts.of_shard(shard)[0]) for shard in shards]:
        if part is None:
            name = place.shard(shard, parts.suffix).name
            found.complaints.append(f"{name} is not there any more; its rows run again")
        else:
            # The joined file is the part of several shards.
            if part.path.exists():
                disk.make_folder(place.damaged)
                disk.rename(part.path, place.damaged / part.path.name)
            rows = found.layout.rows_of(shard)
            found.complaints.append(
                f"{part.path.name} is damaged in rows {rows.start:,} to {rows.stop - 1:,}; it was "
                f"moved to {place.damaged}, and they run again"
            )
        disk.remove(place.seal(shard))


def take_journal(path: Path, found: EarlierRows, disk: Disk) -> None:
    """Makes the journal at `path` one that can be gone on with, and counts its rows."""
    layout, shard = found.layout, _number(path)
    span, rows = layout.span_of(shard), layout.rows_of(shard)
    if not span or (shard in found.sealed and rows == span):
        disk.remove(path)
        return
    if not rows:
        return
    reading = read_journal(path, span, layout.fingerprint)
    if reading.complaint:
        found.complaints.append(reading.complaint)
    if not reading.ours:
        disk.remove(path)
        return
    disk.truncate(path, reading.good_bytes)
    if shard in found.sealed:
        return
    taken = slice(0, len(rows))
    there = reading.index.results[taken] > 0
    found.journaled[shard] = np.packbits(there)
    found.count(shard, int(np.count_nonzero(there)), reading.index.errors(taken))
    found.attempts.update(reading.attempts)


def _number(path: Path) -> int:
    """The shard that a file is of, by its name."""
    return int(path.stem.rpartition("-")[2])
