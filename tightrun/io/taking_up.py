"""What a run begins with: the rows that are done where its output goes, if they are its job's."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

import numpy as np

from tightrun.io.durable import Disk
from tightrun.io.earlier_rows import EarlierRows, Layout, find_earlier_rows
from tightrun.io.earlier_run import has_rows, refuse_another_job, what_differs
from tightrun.io.forcing import take_over
from tightrun.io.manifest import Manifest
from tightrun.io.output_place import OutputError, OutputPlace, Resume
from tightrun.io.retrying import retry_rows, rows_to_retry
from tightrun.io.shard import ShardFormat
from tightrun.io.single_file import Parts


@dataclass(frozen=True, slots=True)
class Beginner:
    """A run that begins, of the job `now`, after the run `earlier` if there was one."""

    place: OutputPlace
    earlier: Manifest | None
    now: Manifest
    layout: Layout
    form: ShardFormat
    disk: Disk

    def take_up(self, id_hashes: np.ndarray, resume: Resume, retry: Set[str]) -> EarlierRows:
        """The rows that are done; `id_hashes` are those of the job's ids. Rows that failed with one
        of the error codes `retry` are to be done again.

        Raises OutputError if they are of another job, which "force" makes this one's.
        """
        left_out = 0
        if self.earlier is not None and resume == "force":
            left_out = self._take_over(self.earlier, id_hashes)
        elif self.earlier is not None:
            refuse_another_job(self.place, self.earlier, self.now)
        found = find_earlier_rows(self.place, self.layout, self.form, self.disk)
        if left_out:
            text = f"{left_out:,} finished rows are left out: this job has none of their ids"
            found.complaints.append(text)
        if rows_to_retry(found, retry):
            # Whatever happens from now on, the job is not complete.
            self.now.write(self.disk, self.place.manifest)
            retry_rows(found, retry, self.now, self.disk)
        return found

    def join(self) -> tuple[Manifest, EarlierRows]:
        """What a run begins with that joins others at work: their manifest, and as yet no rows.

        Raises OutputError if theirs is another job, or another part of it.
        """
        earlier, now = self.earlier, self.now
        assert earlier is not None, "others are at work, and no manifest says on what"
        changed = what_differs(earlier, now)
        if earlier.rows != now.rows:
            changed.append(f"rows: {earlier.rows:,} -> {now.rows:,}")
        if changed:
            raise OutputError(
                f"output.path: runs are at work on {self.place.target}, and on another job "
                f"({'; '.join(changed)}); wait for their end, or name another output.path"
            )
        theirs = replace(
            now, started=earlier.started, earlier=earlier.earlier, learnt=earlier.learnt
        )
        return theirs, EarlierRows(self.layout, Parts.of(self.place, self.form.suffix, {}))

    def is_over(self, found: EarlierRows) -> bool:
        """Whether an earlier run has ended with at least these rows, and their shards are whole."""
        earlier = self.earlier
        ended = earlier and earlier.state == "complete" and earlier.rows >= self.layout.rows
        return bool(ended) and len(found.sealed) == self.layout.shards

    def _take_over(self, earlier: Manifest, id_hashes: np.ndarray) -> int:
        """Makes another job's finished rows this one's; returns how many it has not."""
        if not what_differs(earlier, self.now) or not has_rows(self.place):
            return 0
        args = (self.place, earlier, self.now, self.layout, id_hashes, self.form.suffix, self.disk)
        return take_over(*args).left_out
