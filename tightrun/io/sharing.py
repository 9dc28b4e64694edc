"""What one of several runs that share an output does of the job: one claimed shard after the other.

A shard is claimed when the rows before it have been begun, so that nobody has more than it needs.
What a dead run has finished of a shard is in its journal, and whoever claims the shard goes on from
there. The runs do not talk: each sees which shards are sealed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tightrun.io.claims import Claims
from tightrun.io.durable import OWNER_ONLY, Disk
from tightrun.io.earlier_rows import EarlierRows, take_journal
from tightrun.io.lock import LiveRun, RunLock
from tightrun.io.manifest import State, read_manifest
from tightrun.io.seal import read_seal
from tightrun.io.token_journal import read_tokens, run_of

_PIECE_BYTES = 1 << 20
_POLL_S = 2.0
_LEAD_POLL_S = 0.05
# Whoever keeps the lead for longer has just come, and will find what there is to do.
_LEAVE_S = 5.0


class Sharing:
    """The part of one run; it has the lead when this is made.

    `joins` says that others are at work on the output, so that what lies there is not this run's to
    judge. `exhausted` once nothing is left for this run.
    """

    def __init__(self, lock: RunLock, *, joins: bool) -> None:
        self.joins = joins
        self.exhausted = False
        self._lock = lock
        self._ended = threading.Event()

    def begin(self, earlier: EarlierRows, disk: Disk) -> None:
        """Claims a first shard, if one is free, and gives up the lead: others may come.

        `earlier` are the rows that were found to be done, and keeps counting those of others.
        """
        self._earlier, self._disk = earlier, disk
        self._place, self._layout = earlier.parts.place, earlier.layout
        self._mine: set[int] = set()
        self._claims = Claims(self._lock, self._layout.shards, self.look)
        self._first = self._claim()
        self.exhausted = self._first is None
        self._lock.follow("works")

    def shards(self, stop: threading.Event, wanted: Callable[[], bool]) -> Iterator[int]:
        """The shards that this run does, each when it is `wanted`, which waits for that.

        Ends when none is left and this run's are sealed: until then another may die with some.
        """
        shard = self._first
        while shard is not None or not stop.is_set():
            if shard is not None:
                yield shard
                if not wanted():
                    return
            elif not self._mine:
                self.exhausted = True
                return
            else:
                self._ended.wait(_POLL_S)
                self._ended.clear()
            shard = self._claim()

    def check(self) -> None:
        """Raises LostError if others have taken this run for dead, and maybe its shards."""
        self._lock.check()

    def sealed(self, shard: int) -> None:
        """A shard of this run is done."""
        self._earlier.sealed.add(shard)
        self._mine.discard(shard)
        self._ended.set()

    def look(self) -> set[int]:
        """The shards that are sealed by now, by whomever; their rows are counted."""
        earlier = self._earlier
        for path in self._place.seals.glob("train-*.bin"):
            shard = int(path.stem[-5:])
            if shard in earlier.sealed or shard in self._mine or shard >= self._layout.shards:
                continue
            seal = read_seal(path)
            whole = seal is not None and seal.rows >= len(self._layout.rows_of(shard))
            if seal is not None and whole and seal.fingerprint == self._layout.fingerprint:
                earlier.take_sealed(shard, seal)
        return set(earlier.sealed)

    @contextmanager
    def leaving(self) -> Iterator[State | None]:
        """This run has done with the output; the block is told the state that it leaves it in.

        None if that is not this run's to say: others are at work, or one of them has said it.
        """
        others = lead_of(self._lock, _LEAVE_S)
        try:
            yield None if others is None else self._outcome(others)
        finally:
            self._lock.follow("leaves")

    def _outcome(self, others: list[LiveRun]) -> State | None:
        if len(self.look()) == self._layout.shards:
            there = read_manifest(self._place.manifest)
            if there is not None and there.state == "complete":
                self._disk.remove_folder(self._place.journal)
                return None
            self._clean({self._lock.run, *(run.run for run in others)})
            return "complete"
        at_work = [run for run in others if run.stage != "leaves"]
        return None if at_work else "stopped"

    def _clean(self, live: set[int]) -> None:
        """Removes what dead runs have left of a job that is complete."""
        place, rows_of, span_of = self._place, self._layout.rows_of, self._layout.span_of
        left = [path for path in place.journal.glob("tokens-*.bin") if run_of(path) not in live]
        for path in place.journal.glob("rows-*.bin"):
            # One of a shard that ends early is for a run that takes more rows.
            if rows_of(int(path.stem[-5:])) == span_of(int(path.stem[-5:])):
                left.append(path)
        left += place.journal.glob("columns-*")
        for folder in (place.journal, place.data, place.seals):
            left += folder.glob(Disk.temporary(Path("*")).name)
        for path in left:
            self._disk.remove(path)
        self._lock.forget_dead()

    def _claim(self) -> int | None:
        shard = self._claims.next()
        if shard is not None:
            self._mine.add(shard)
            self._take_up(shard)
        return shard

    def _take_up(self, shard: int) -> None:
        """Finds what a run that had the shard before has done of it."""
        earlier, journal = self._earlier, self._place.row_journal(shard)
        self._disk.remove(self._place.column_spool(shard))
        earlier.journaled.pop(shard, None)
        if journal.exists():
            take_journal(journal, earlier, self._disk)
        if journal.exists():
            # A file of our own: a run that was only silent may still write to the one it had.
            self._disk.write_whole(journal, _content(journal), OWNER_ONLY)
        if shard not in earlier.journaled:
            earlier.count(shard, 0, {})
        rows = self._layout.rows_of(shard)
        live = {*self._claims.live, self._lock.run}
        begun, complaints = read_tokens(self._place.journal, self._layout.fingerprint, rows, live)
        earlier.begun.update((row, begun[row]) for row in begun if not earlier.is_done(row))
        earlier.complaints += complaints


def _content(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def lead_of(lock: RunLock, within_s: float) -> list[LiveRun] | None:
    """Takes the lead and returns the other runs that live; None if another keeps it for longer."""
    until_s = time.monotonic() + within_s
    while (others := lock.lead()) is None:
        if time.monotonic() >= until_s:
            return None
        time.sleep(_LEAD_POLL_S)
    return others
