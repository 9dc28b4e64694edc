"""The door to the output side: takes finished rows in any order, leaves shards in input order.

What finishes goes at once to the journal of its shard, what was read to its column spool; a
complete shard is written whole from both, a thousand rows at a time. All of it happens in one
thread beside the run, so that nobody waits for a disk as long as the disk keeps up.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tightrun.core import Completion
from tightrun.io.dataset_card import write_card
from tightrun.io.durable import Disk
from tightrun.io.earlier_run import claim, completed_run
from tightrun.io.events import EventLog
from tightrun.io.fingerprint import fingerprint, fingerprint_parts
from tightrun.io.input_types import InputChunk, Scan
from tightrun.io.journal import Finished
from tightrun.io.jsonl_out import JsonlFormat
from tightrun.io.manifest import Manifest, RunInfo, State, package_versions, utc_now
from tightrun.io.openai_out import OpenAiFormat
from tightrun.io.output_place import OutputError, OutputPlace, Resume
from tightrun.io.parquet_out import ParquetFormat
from tightrun.io.rows import RowShape
from tightrun.io.shard import OpenShard, ShardFormat
from tightrun.io.single_file import join_shards
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
    "Window",
    "WriteError",
    "claim",
]

# Chunks wait when this much is not yet on its way to the disk; finished rows only much later,
# because whoever finishes them has a model to run.
_ADMIT_ROOM = 16 << 20
_PUT_ROOM = 128 << 20
_ROW_BYTES = 200
_SYNC_S = 10.0


class OutputWriter:
    """Writes the output of one run of a job.

    `scan` is that of the job's input, `rows` how many of its rows this run takes (default all),
    `n` the samples per row. `place` is a claimed OutputPlace; without it, the job's is claimed.
    Raises OutputError if the output of another job lies there.

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
        disk: Disk | None = None,
    ) -> None:
        self._disk = disk or Disk()
        if place is None:
            place = OutputPlace.of(job.output.path)
            claim(place, "auto", self._disk)
        self.place = place
        self.rows = scan.rows if rows is None else min(rows, scan.rows)
        self.rows_done = 0
        self.rows_failed = 0
        self.error_counts: Counter[str] = Counter()
        self.window = Window(job.output.shard_rows, self.rows)
        self.events = EventLog(place.bookkeeping, self._disk)
        self._form = _shard_format(job, scan, n)
        self._open: dict[int, OpenShard] = {}
        self._closed = False
        self._manifest = _new_manifest(job, scan, run_info, self.rows)
        earlier = completed_run(place, self._manifest, self.outputs)
        self.already_complete = earlier is not None
        if earlier is not None:
            self.rows_done, self.rows_failed = earlier.rows_done, earlier.rows_failed
            self.error_counts.update(earlier.errors)
        else:
            self._start()

    @property
    def outputs(self) -> list[Path]:
        """The files that hold the rows, once the run is complete."""
        if self.place.single_file:
            return [self.place.target]
        shards = range(self.window.shards)
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
        self._manifest.write(self._disk, self.place.manifest)

    def set_learnt(self, learnt: Mapping[str, Any]) -> None:
        """What the next run of the job may begin with; written when this one closes."""
        self._manifest = replace(self._manifest, learnt=dict(learnt))

    def admit(self, chunk: InputChunk) -> None:
        """Takes the kept columns of rows that are about to be run."""
        self._thread.give(partial(self._admit, chunk), chunk.nbytes, _ADMIT_ROOM)

    def put(self, completion: Completion) -> None:
        """Takes a finished row, good or bad."""
        finished = Finished(completion, int(time.time()))
        self._thread.give(partial(self._put, finished), _memory_of(completion), _PUT_ROOM)

    def flush(self) -> None:
        """Returns when every row put so far is on the disk."""
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
            if final:
                self._finish()
            self._end("complete" if final else "stopped")
        finally:
            for shard in self._open.values():
                shard.abandon()

    def _start(self) -> None:
        place = self.place
        try:
            self._disk.make_folder(place.data)
            self._disk.make_folder(place.bookkeeping)
            self._disk.make_folder(place.journal, 0o700)
            self._write_about()
            about = {"run": self._manifest.run, "rows": self.rows}
            self.events.event("started", **about, fingerprint=self.fingerprint)
        except OSError as error:
            raise OutputError(
                f"output.path: {place.target} cannot be written ({error}); make room or name "
                "another"
            ) from error
        self._thread = WriteBehind(
            every=self._sync, period_s=_SYNC_S, failed=self.window.abandon, name="tightrun-writer"
        )

    def _write_about(self) -> None:
        """Writes what tells of the run; the manifest last, because it says that all is there."""
        if self.place.card is not None:
            write_card(self._disk, self.place.card, self._manifest, self._form.suffix)
        self._manifest.write(self._disk, self.place.manifest)

    # In the writer's thread, and after its end.

    def _shard_of(self, row: int) -> OpenShard:
        index = row // self._manifest.shard_rows
        if index not in self._open:
            rows, folder = self.window.rows_of(index), self.place.journal
            self._open[index] = OpenShard(self._disk, folder, index, rows, self._form)
        return self._open[index]

    def _admit(self, chunk: InputChunk) -> None:
        self._shard_of(chunk.start).admit(chunk)

    def _put(self, finished: Finished) -> None:
        row = finished.completion
        shard = self._shard_of(row.row_index)
        shard.append(finished)
        self.rows_done += 1
        if row.error is not None:
            self.rows_failed += 1
            self.error_counts[row.error.code] += 1
        self.window.finished(row.row_index)
        if shard.complete:
            self._seal(shard)

    def _seal(self, shard: OpenShard) -> None:
        path = self.place.shard(shard.index, self._form.suffix)
        nbytes = shard.seal(path, self.place.shard_errors(shard.index), self.fingerprint)
        del self._open[shard.index]
        self.window.sealed(shard.index)
        about = {"first_row": shard.rows.start, "rows": len(shard.rows), "failed": shard.failed}
        self.events.event("sealed", file=path.name, **about, bytes=nbytes)

    def _sync(self) -> None:
        for shard in self._open.values():
            shard.sync()

    def _finish(self) -> None:
        assert self.rows_done == self.rows, f"{self.rows - self.rows_done} rows are missing"
        assert not self._open
        if self.place.single_file:
            shards, suffix = self.window.shards, self._form.suffix
            any_failed = self.rows_failed > 0
            join_shards(self._disk, self.place, shards, suffix, any_failed=any_failed)
        self._disk.remove_folder(self.place.journal)

    def _end(self, state: State) -> None:
        for shard in self._open.values():
            shard.sync()
            shard.close()
        self._manifest = replace(
            self._manifest,
            state=state,
            ended=utc_now(),
            rows_done=self.rows_done,
            rows_failed=self.rows_failed,
            errors=dict(self.error_counts),
        )
        self._write_about()
        self.events.event(state, rows=self.rows_done, failed=self.rows_failed)


def _shard_format(job: Job, scan: Scan, n: int) -> ShardFormat:
    if job.output.format == "openai-batch":
        return OpenAiFormat(job.model.path)
    # The schema must not depend on what the rows hold: the column is there if a row might ask.
    asked = job.sampling.logprobs > 0 or "sampling_params" in scan.columns
    asked = asked or scan.format in ("openai-batch", "mixed")
    shape = RowShape(scan.schema, samples=n > 1, logprobs=asked)
    form = ParquetFormat if job.output.format == "parquet" else JsonlFormat
    return form(scan.schema, shape)


def _new_manifest(job: Job, scan: Scan, run_info: RunInfo, rows: int) -> Manifest:
    parts = fingerprint_parts(job, scan)
    return Manifest(
        fingerprint=fingerprint(parts),
        fingerprint_parts=parts,
        state="running",
        run=run_info.number,
        started=run_info.started,
        rows=rows,
        shard_rows=job.output.shard_rows,
        format=job.output.format,
        job=job.resolved(),
        versions=package_versions(),
        host=run_info.host,
        plan=run_info.plan,
    )


def _memory_of(completion: Completion) -> int:
    """About how many bytes a finished row keeps until it is written."""
    nbytes = _ROW_BYTES
    for sample in completion.samples:
        nbytes += len(sample.text)
        if sample.logprobs:
            nbytes += len(sample.logprobs) * (1 + len(sample.logprobs[0].top)) * _ROW_BYTES
    return nbytes
