"""The door to the output side: takes finished rows in any order, leaves shards in input order.

What finishes goes at once to the journal of its shard, what was read to its column spool; a
complete shard is written whole from both, a thousand rows at a time. The tokens of rows that have
not finished go to a journal of their own. All of it happens in one thread beside the run, so that
nobody waits for a disk as long as the disk keeps up. What earlier runs have done is found when the
writer is made, and stays.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tightrun.core import Completion, Request, Written
from tightrun.io.dataset_card import write_card
from tightrun.io.durable import Disk
from tightrun.io.earlier_rows import Layout
from tightrun.io.earlier_run import claim, earlier_run
from tightrun.io.events import EventLog
from tightrun.io.input_types import InputChunk, Scan
from tightrun.io.manifest import RunInfo, State, new_manifest, utc_now
from tightrun.io.output_place import OutputError, OutputPlace, Resume, UnwritableError
from tightrun.io.row_record import Finished, memory_of
from tightrun.io.shard import OpenShard
from tightrun.io.shard_formats import format_of
from tightrun.io.sharing import Sharing
from tightrun.io.single_file import join_shards
from tightrun.io.taking_up import Beginner
from tightrun.io.token_journal import TokenJournal
from tightrun.io.window import Window
from tightrun.io.write_behind import WriteBehind, WriteError

if TYPE_CHECKING:
    from tightrun.io.job import Job

__all__ = [
    "OutputError",
    "OutputPlace",
    "OutputWriter",
    "Resume",
    "RunInfo",
    "UnwritableError",
    "Window",
    "WriteError",
    "claim",
]

# What the rows that have not finished have drawn, beyond the tokens known of each sample.
Unfinished = Callable[[Callable[[int, int, int], int]], list[Written]]

# Chunks wait when this much is not yet on its way to the disk; finished rows only much later,
# because whoever finishes them has a model to run.
_ADMIT_ROOM = 16 << 20
_PUT_ROOM = 128 << 20
# With the time a sync takes, and a shard that is just being written, a kill costs less than 10 s.
_SYNC_S = 5.0


class OutputWriter:
    """Writes the output of one run of a job, from where earlier runs of it have left off.

    `scan` is that of the job's input, `rows` how many of its rows this run takes (default all),
    `n` the samples per row. `place` is a claimed OutputPlace; without it, the job's is claimed.
    With `sharing` others may write to it too, each its own shards; `state` is what became of the
    output in the end, None if it was left to them.
    Rows that failed with an error code of `retry` are done again, and no others that the run before
    did not take. `on_sealed` is told, in the writer's thread, of each shard that is whole.
    Raises OutputError if the output of another job lies there; with `resume` "force", its finished
    rows are taken over where this job has their ids.

    `admit` and `put` may be called from different threads; each row is admitted before it is put.
    After an error of the disk, every call raises WriteError, and the window lets no row in.
    """

    def __init__(
        self,
        job: Job,
        scan: Scan,
        *,
        run_info: RunInfo,
        n: int,
        rows: int | None = None,
        place: OutputPlace | None = None,
        resume: Resume = "auto",
        sharing: Sharing | None = None,
        retry: Set[str] = frozenset(),
        on_sealed: Callable[[int], None] = lambda _shard: None,
        disk: Disk | None = None,
    ) -> None:
        self._disk = disk or Disk()
        self._sharing, self._on_sealed = sharing, on_sealed
        self.state: State | None = "running"
        if place is None:
            place = OutputPlace.of(job.output.path)
            claim(place, "auto", self._disk)
        self.place = place
        self.rows = scan.rows if rows is None else min(rows, scan.rows)
        earlier = earlier_run(place)
        if retry and earlier is not None:
            self.rows = min(self.rows, earlier.rows)
        self.events = EventLog(place.bookkeeping, self._disk)
        self._form = format_of(job, scan, n)
        self._open: dict[int, OpenShard] = {}
        self._closed = False
        self._unfinished: Unfinished = lambda _known: []
        self._manifest = new_manifest(job, scan, run_info, self.rows, self._form.columns, earlier)
        shard_rows = job.output.shard_rows
        self._layout = Layout(self.fingerprint, shard_rows, self.rows, scan.rows)
        beginner = Beginner(place, earlier, self._manifest, self._layout, self._form, self._disk)
        if sharing is not None and sharing.joins:
            self._manifest, self.earlier = beginner.join()
        else:
            self.earlier = beginner.take_up(scan.id_hashes, resume, retry)
        self._put_rows = 0
        self._put_errors: Counter[str] = Counter()
        self.window = Window(shard_rows)
        self.already_complete = beginner.is_over(self.earlier)
        if not self.already_complete:
            self._start()

    @property
    def rows_done(self) -> int:
        """Finished rows, of this run and of all others as far as this one knows."""
        return self.earlier.done + self._put_rows

    @property
    def error_counts(self) -> Counter[str]:
        """How many of them ended with each error."""
        return self.earlier.errors + self._put_errors

    @property
    def shared(self) -> bool:
        """Whether other runs may write to the output too."""
        return self._sharing is not None

    @property
    def exhausted(self) -> bool:
        """Whether others may, and nothing is left for this run."""
        return self._sharing is not None and self._sharing.exhausted

    @property
    def rows_failed(self) -> int:
        """Finished rows that have an error."""
        return self.error_counts.total()

    @property
    def outputs(self) -> list[Path]:
        """The files that hold the rows, once the run is complete."""
        if self.place.single_file:
            return [self.place.target]
        shards = range(self._layout.shards)
        return [self.place.shard(index, self._form.suffix) for index in shards]

    @property
    def fingerprint(self) -> str:
        """What this job is known by."""
        return self._manifest.fingerprint

    @property
    def fingerprint_parts(self) -> Mapping[str, Any]:
        """What the job is known by, part by part."""
        return self._manifest.fingerprint_parts

    def set_plan(self, plan: Mapping[str, Any]) -> None:
        """Records the plan, once it is known."""
        self._manifest = replace(self._manifest, plan=dict(plan))
        if self._sharing is None:
            self._manifest.write(self._disk, self.place.manifest)

    def set_learnt(self, learnt: Mapping[str, Any]) -> None:
        """What the next run of the job may begin with; written when this one closes."""
        self._manifest = replace(self._manifest, learnt=dict(learnt))

    def keep_unfinished(self, unfinished: Unfinished) -> None:
        """Lets the tokens of unfinished rows be kept: `unfinished` is asked every few seconds."""
        self._unfinished = unfinished

    def to_read(
        self, stop: threading.Event, wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[range]:
        """The rows that are to be read and admitted, those of one shard after those of another.

        Waits as the window asks, and where others share the output for more rows to be `wanted`;
        ends early when stopped, or when nothing more can be written.
        """
        shards = self.earlier.to_do()
        if self._sharing is not None:
            shards = self._sharing.shards(stop, lambda: self.window.wait_to_open(stop) and wanted())
        for shard in shards:
            if not self.window.wait_to_open(stop):
                return
            self.window.open(self._layout.rows_of(shard))
            yield self._layout.rows_of(shard)

    def admit(self, chunk: InputChunk) -> list[Request | Completion]:
        """Takes the kept columns of rows that are about to be run; returns those that are to be.

        Rows that an earlier run has finished are left out; of one that it began, the request has
        what it wrote.
        """
        self.window.open(self._layout.rows_of(chunk.start // self._layout.shard_rows))
        done = self.earlier.done_of(range(chunk.start, chunk.start + chunk.rows))
        self._thread.give(partial(self._admit, chunk, done), chunk.nbytes, _ADMIT_ROOM)
        left_out = set(done)
        items = (item for item in chunk.items if item.row_index not in left_out)
        return [self.earlier.with_written(item) for item in items]

    def put(self, completion: Completion) -> None:
        """Takes a finished row, good or bad."""
        finished = Finished(completion, int(time.time()))
        self._thread.give(partial(self._put, finished), memory_of(completion), _PUT_ROOM)

    def flush(self) -> None:
        """Returns when every row put so far is on the disk, and what the others have drawn."""
        self._thread.give(self._sync)
        self._thread.drain()

    def close(self, final: bool) -> None:
        """Ends the writing; `final` says that every row has been put. Closing again does nothing.

        Not final: shards that are not complete stay in the journal.
        """
        if self._closed or self.already_complete:
            return
        self._closed = True
        try:
            self._thread.close()
            self._end("complete" if final else "stopped")
        except WriteError:
            self._rescue()
            raise
        finally:
            for shard in self._open.values():
                shard.abandon()
            self._tokens.abandon()

    def _rescue(self) -> None:
        """One file failed, and that is what is told; what the others have is not to be lost."""
        for shard in self._open.values():
            with suppress(OSError):
                shard.sync()
        with suppress(OSError):
            self._tokens.sync()

    def _start(self) -> None:
        place = self.place
        try:
            for folder in (place.data, place.bookkeeping):
                self._disk.make_folder(folder)
            for private in (place.journal, place.seals):
                self._disk.make_folder(private, 0o700)
            if self._sharing is None or not self._sharing.joins:
                self._manifest = replace(self._manifest, **self._counts())
                self._manifest.write(self._disk, place.manifest)
                self._write_card()
                self.earlier.parts.restore(self._disk, self.earlier.sealed)
            self._tokens = self._journal_of_tokens()
            if self._sharing is not None:
                self._sharing.begin(self.earlier, self._disk)
            self._tell_start()
        except OSError as error:
            raise UnwritableError(place.target, error) from error
        self._thread = WriteBehind(
            every=self._sync, period_s=_SYNC_S, failed=self.window.abandon, name="tightrun-writer"
        )

    def _journal_of_tokens(self) -> TokenJournal:
        shared = self._sharing is not None
        return TokenJournal(
            self._disk,
            self.place.journal,
            self.fingerprint,
            {} if shared else self.earlier.begun,
            run=self._manifest.run,
            shared=shared,
        )

    def _tell_start(self) -> None:
        about = {"run": self._manifest.run, "rows": self.rows, "done": self.rows_done}
        self.events.event("started", **about, fingerprint=self.fingerprint)
        for complaint in self.earlier.complaints:
            self.events.event("found", text=complaint)

    def _write_card(self) -> None:
        if self.place.card is not None:
            write_card(self._disk, self.place.card, self._manifest, self._form.suffix)

    # In the writer's thread, and after its end.

    def _shard_of(self, row: int) -> OpenShard:
        index = row // self._layout.shard_rows
        if index not in self._open:
            self._check()
            rows, span = self._layout.rows_of(index), self._layout.span_of(index)
            self._open[index] = OpenShard(
                self._disk, self.place, index, rows, span, self._form, self.fingerprint
            )
        return self._open[index]

    def _check(self) -> None:
        """A shard is ours to open and to seal as long as others have not taken us for dead."""
        if self._sharing is not None:
            self._sharing.check()

    def _admit(self, chunk: InputChunk, done: list[int]) -> None:
        shard = self._shard_of(chunk.start)
        shard.admit(chunk)
        for row in done:
            self.window.finished(row)
        if shard.complete:
            self._seal(shard)

    def _put(self, finished: Finished) -> None:
        row = finished.completion
        shard = self._shard_of(row.row_index)
        shard.append(finished)
        self._tokens.end(row.row_index)
        self._put_rows += 1
        if row.error is not None:
            self._put_errors[row.error.code] += 1
        self.window.finished(row.row_index)
        if shard.complete:
            self._seal(shard)

    def _seal(self, shard: OpenShard) -> None:
        self._check()
        seal = shard.seal()
        del self._open[shard.index]
        if self._sharing is not None:
            self._sharing.sealed(shard.index)
        self.window.sealed(shard.index)
        self.events.event(
            "sealed",
            file=self.place.shard(shard.index, self._form.suffix).name,
            first_row=seal.first_row,
            rows=seal.rows,
            failed=sum(seal.errors.values()),
            bytes=seal.content.nbytes,
        )
        self._on_sealed(shard.index)

    def _sync(self) -> None:
        for shard in self._open.values():
            shard.sync()
        self._tokens.keep(self._unfinished(self._tokens.known))
        self._tokens.sync()

    def _finish(self) -> None:
        assert self.rows_done == self.rows, f"{self.rows - self.rows_done} rows are missing"
        assert not self._open
        if self.place.single_file:
            join_shards(
                self._disk,
                self.place,
                self._layout.shards,
                self._form.suffix,
                any_failed=self.rows_failed > 0,
            )

    def _end(self, state: State) -> None:
        self._sync()
        for shard in self._open.values():
            shard.close()
        self._tokens.close()
        if self._sharing is None:
            self._conclude(state)
            return
        with self._sharing.leaving() as whose:
            if whose is None:
                self.state = None
                self.events.event("left", run=self._manifest.run, rows=self._put_rows)
            else:
                self._conclude(whose)

    def _conclude(self, state: State) -> None:
        if state == "complete":
            self._finish()
        self._disk.remove_folder(self.place.journal)
        about = {"state": state, "ended": utc_now(), **self._counts()}
        self._manifest = replace(self._manifest, **about)
        self._write_card()
        # Last, because it says that all is there.
        self._manifest.write(self._disk, self.place.manifest)
        self.events.event(state, rows=self.rows_done, failed=self.rows_failed)
        self.state = state

    def _counts(self) -> dict[str, Any]:
        return {
            "rows_done": self.rows_done,
            "rows_failed": self.rows_failed,
            "errors": dict(self.error_counts),
        }
