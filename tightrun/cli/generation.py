"""The phase in which rows become text: reader, engine, writer and counts, joined."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from tightrun.cli.accuracy import Marking
from tightrun.cli.engine_seam import Engine
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.failures import reason_of, too_many_failed
from tightrun.cli.pass_log import PassLog
from tightrun.cli.progress import Meter, Progress
from tightrun.cli.reader import QUEUE_BYTES, RequestQueue, start_reader
from tightrun.cli.stopping import Stop
from tightrun.cli.tally import Tally
from tightrun.cli.views import View
from tightrun.core import Completion, Request, RunNote
from tightrun.io.inputs import InputChunk, Scan, read_chunks
from tightrun.io.job import Job
from tightrun.io.outputs import OutputWriter

_WANTED_POLL_S = 0.1
# More rows are wanted when no more of them wait than this part of those that run.
_RUNNING_PER_WAITING = 4


class Generation:
    """Runs the rows of a job through an engine and counts what becomes of them.

    The engine computes in the thread that calls `run`; a reader thread keeps it fed, and rows
    finish in a thread of the engine, or in the reader's when they cannot be executed at all.
    """

    def __init__(
        self, job: Job, engine: Engine, writer: OutputWriter, stop: Stop, view: View, prompts: int
    ) -> None:
        self.tally = Tally()
        self.marking = Marking()
        self.rows = writer.rows
        self.seconds = 0.0
        self._job, self._engine, self._writer = job, engine, writer
        self._stop, self._view = stop, view
        self._prompts_to_show = prompts
        self._meter = Meter(time.monotonic(), job.sampling.n)
        self.count_others()

    @property
    def complete(self) -> bool:
        """Whether every row has come to its end that is this run's to do."""
        if self._writer.shared:
            return self._writer.exhausted
        return self.tally.done == self.rows

    def run(self, scan: Scan, passes: PassLog) -> None:
        """Returns when every row has finished or the run was stopped; raises what a thread did."""
        began_s = time.monotonic()
        self._meter = Meter(began_s, self._job.sampling.n)
        queue = RequestQueue(QUEUE_BYTES, self._stop.event)

        def wanted() -> bool:
            return self._wait_until_wanted(queue)

        chunks = unfinished_chunks(scan, self._job, self._writer, self._stop.event, wanted)
        self._writer.keep_unfinished(self._engine.unfinished)
        reader = start_reader(
            chunks, self._writer, queue, self._stop, admitted=self._admitted, finish=self._finish
        )
        try:
            with self._stop.catching():
                stop = self._stop.event
                self._engine.run(queue, self._finish, passes.step, stop, passes.spans, self._noted)
        finally:
            self.seconds = time.monotonic() - began_s
            if not self.complete:
                self._stop.event.set()
            reader.join()
            self.count_others()
        if self._stop.error is not None:
            raise self._stop.error
        assert self.complete or self._stop.code is not None, "the engine left rows unfinished"

    def count_others(self) -> None:
        """Takes note of the rows that other runs have done by now."""
        earlier = self._writer.earlier
        self.tally.of_others(earlier.done, earlier.errors)

    def _wait_until_wanted(self, queue: RequestQueue) -> bool:
        """Waits until the engine has begun nearly all rows that were read; False after a stop."""
        while not self._stop.event.wait(_WANTED_POLL_S):
            if queue.empty:
                engine = self._engine.snapshot()
                if engine.waiting <= engine.running // _RUNNING_PER_WAITING:
                    return True
        return False

    def progress(self) -> Progress:
        """How far it is now; may be called from any thread."""
        self.count_others()
        return self._meter.measure(
            time.monotonic(),
            rows=self.rows,
            counts=self.tally,
            engine=self._engine.snapshot(),
        )

    def _noted(self, note: RunNote) -> None:
        self._view.note(note.text)
        self._writer.events.event(note.event, text=note.text, **note.figures)

    def _admitted(self, chunk: InputChunk, items: Sequence[Request | Completion]) -> None:
        self.marking.expect(chunk, {item.row_index for item in items})
        for item in items:
            if not isinstance(item, Request):
                continue
            self.tally.begun(item)
            if self._prompts_to_show:
                self._prompts_to_show -= 1
                place = chunk.place(item.row_index - chunk.start)
                self._view.prompt(f"prompt of {item.id} ({place})", _text(item))

    def _finish(self, completion: Completion) -> None:
        with self._stop.catching():
            self._writer.put(completion)
            self.marking.mark(completion)
            self.tally.add(completion)
            limit = self._job.limits.max_failed
            # What failed in earlier runs has been judged then.
            if too_many_failed(self.tally.own_failed, self.tally.own, limit):
                self._stop.request(reason_of(limit), ExitCode.TOO_MANY_FAILED)


def seal_finished(scan: Scan, job: Job, writer: OutputWriter, stop: Stop) -> None:
    """Gives the writer the columns of rows that have all finished, so that it can write them."""
    for chunk in unfinished_chunks(scan, job, writer, stop.event):
        writer.window.wait_for_room(chunk.start + chunk.rows - 1, stop.event)
        stop.check()
        assert not writer.admit(chunk), "a row that is said to be done was not"
    stop.check()


def unfinished_chunks(
    scan: Scan,
    job: Job,
    writer: OutputWriter,
    stop: threading.Event,
    wanted: Callable[[], bool] = lambda: True,
) -> Iterator[InputChunk]:
    """The input without the rows of shards that an earlier run has written, or others write.

    It is read on from shard to shard; only where one is left out does the reading begin anew.
    """
    at = -1
    for rows in writer.to_read(stop, wanted):
        if rows.start != at:
            chunks = read_chunks(scan, job, start_row=rows.start, limit=writer.rows)
        at = rows.start
        while at < rows.stop:
            chunk = next(chunks)
            at += chunk.rows
            yield chunk


def _text(request: Request) -> str:
    if isinstance(request.prompt, str):
        return request.prompt
    return "\n".join(f"{m.get('role')}: {m.get('content')}" for m in request.prompt)
