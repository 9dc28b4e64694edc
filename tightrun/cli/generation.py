"""The phase in which rows become text: reader, engine, writer and counts, joined."""

from __future__ import annotations

import time

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


class Generation:
    """Runs the rows of a job through an engine and counts what becomes of them.

    The engine computes in the thread that calls `run`; a reader thread keeps it fed, and rows
    finish in a thread of the engine, or in the reader's when they cannot be executed at all.
    """

    def __init__(
        self, job: Job, engine: Engine, writer: OutputWriter, stop: Stop, view: View, prompts: int
    ) -> None:
        self.tally, self.marking = Tally(), Marking()
        self.rows = writer.rows
        self.seconds = 0.0
        self._job, self._engine, self._writer = job, engine, writer
        self._stop, self._view = stop, view
        self._prompts_to_show = prompts
        self._meter = Meter(time.monotonic(), job.sampling.n)

    @property
    def complete(self) -> bool:
        """Whether every row has come to its end."""
        return self.tally.done == self.rows

    def run(self, scan: Scan, passes: PassLog) -> None:
        """Returns when every row has finished or the run was stopped; raises what a thread did."""
        began_s = time.monotonic()
        self._meter = Meter(began_s, self._job.sampling.n)
        queue = RequestQueue(QUEUE_BYTES, self._stop.event)
        chunks = read_chunks(scan, self._job, limit=self.rows)
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
        if self._stop.error is not None:
            raise self._stop.error
        assert self.complete or self._stop.code is not None, "the engine left rows unfinished"

    def progress(self) -> Progress:
        """How far it is now; may be called from any thread."""
        return self._meter.measure(
            time.monotonic(),
            rows=self.rows,
            counts=self.tally,
            engine=self._engine.snapshot(),
        )

    def _noted(self, note: RunNote) -> None:
        self._view.note(note.text)
        self._writer.events.event(note.event, text=note.text, **note.figures)

    def _admitted(self, chunk: InputChunk) -> None:
        self.marking.expect(chunk)
        for number, item in enumerate(chunk.items):
            if self._prompts_to_show == 0:
                return
            if isinstance(item, Request):
                self._prompts_to_show -= 1
                self._view.prompt(f"prompt of {item.id} ({chunk.place(number)})", _text(item))

    def _finish(self, completion: Completion) -> None:
        with self._stop.catching():
            self._writer.put(completion)
            self.marking.mark(completion)
            self.tally.add(completion)
            limit = self._job.limits.max_failed
            if too_many_failed(self.tally.failed, self.tally.done, limit):
                self._stop.request(reason_of(limit), ExitCode.TOO_MANY_FAILED)


def _text(request: Request) -> str:
    if isinstance(request.prompt, str):
        return request.prompt
    return "\n".join(f"{m.get('role')}: {m.get('content')}" for m in request.prompt)
