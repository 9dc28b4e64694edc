"""Several processes on one output, as one run: started, watched, and brought to one end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.holding import Holding
from tightrun.cli.outcome import Span, code_of_failures
from tightrun.cli.output_at import name_of, place_of, refuse_shared
from tightrun.cli.progress import Progress, together_s
from tightrun.cli.run import title_of
from tightrun.cli.stopping import Stop, time_limit
from tightrun.cli.summary import Accuracy, Summary
from tightrun.cli.views import View
from tightrun.cli.worker_places import WorkerPlace
from tightrun.cli.worker_process import Order, WorkerProcess
from tightrun.io.folder_counts import FolderCounts
from tightrun.io.job import Job
from tightrun.io.manifest import Manifest, read_manifest
from tightrun.io.outputs import OutputError
from tightrun.io.owner import Here

_POLL_S = 0.1
_COUNT_S = 2.0


class Workers:
    """Runs a job in a process at each of `places`; `kill` ends them at once."""

    def __init__(
        self, job: Job, order: Order, places: Sequence[WorkerPlace], view: View, stop: Stop
    ) -> None:
        self._job, self._order, self._places = job, order, places
        self._view, self._stop = view, stop
        self._place = place_of(job.output.path)
        refuse_shared(self._place)
        self._span = Span.begin()
        self._all: list[WorkerProcess] = []
        self._told: set[str] = set()
        self._counts: FolderCounts | None = None
        self._done = 0
        self._errors: Counter[str] = Counter()
        self._manifest: Manifest | None = None
        self._rows = 0
        self._next_count_s = 0.0
        self._next_tick_s = time.monotonic() + view.interval_s

    def run(self, here: Here) -> Summary:
        """Runs it to its end or its stop. Raises OutputError for what cannot be gone on with."""
        if "-" in self._job.input.path:
            raise OutputError(
                "input.path: '-' can be read by one process only; write the rows to a file for "
                "--workers"
            )
        if self._order.options.resume == "new":
            self._move_aside(here)
        self._view.title(title_of(self._job))
        self._view.phase("run", f"{len(self._places)} processes")
        with time_limit(self._stop, self._job.limits.time):
            self._rounds()
        self._view.close(good=self._complete)
        summary = self._summary()
        # Of processes that did not come to run anything, what they said is all.
        if any(worker.summary for worker in self._all) or self._complete:
            self._view.closing(summary)
        return summary

    def kill(self) -> None:
        """Ends every process at once; must not wait."""
        for worker in self._all:
            worker.kill()

    def _move_aside(self, here: Here) -> None:
        """Once for all of them, who then go on with the empty place."""
        with closing(Holding(self._place, here, self._view, self._stop)) as holding:
            if holding.take("new", self._order.options.if_locked):
                holding.make_way("new")
        options = replace(self._order.options, resume="auto")
        self._order = replace(self._order, options=options)

    def _rounds(self) -> None:
        """Starts them; and again those that died when the others have gone, while rows get done."""
        places = list(self._places)
        while places:
            self._count()
            before = self._done
            team = [self._start(place) for place in places]
            self._watch(team)
            self._count()
            left = not self._complete and not self._stop.event.is_set() and self._done > before
            places = [place for place, w in zip(places, team, strict=True) if w.died and left]

    def _start(self, place: WorkerPlace) -> WorkerProcess:
        number = len(self._all) + 1

        def tell(event: Mapping[str, Any]) -> None:
            self._tell(number, event)

        worker = WorkerProcess(number, self._order, place, tell)
        self._all.append(worker)
        return worker

    def _tell(self, number: int, event: Mapping[str, Any]) -> None:
        """What each of them says is said once."""
        kind, text = event["event"], event["text"]
        if text in self._told:
            return
        self._told.add(text)
        if kind == "fact":
            self._view.fact(text)
        elif kind == "prompt":
            self._view.prompt(event["place"], text)
        elif kind == "error":
            self._view.error(f"worker {number}: {text}")
        else:
            self._view.note(f"worker {number}: {text}")

    def _watch(self, team: list[WorkerProcess]) -> None:
        at_work = list(team)
        while at_work:
            time.sleep(_POLL_S)
            if self._stop.event.is_set():
                for worker in at_work:
                    worker.stop()
            for worker in [worker for worker in at_work if worker.code is not None]:
                at_work.remove(worker)
                worker.join()
                if worker.died and not self._stop.event.is_set():
                    self._view.note(f"worker {worker.number} {worker.end}; others take its rows")
                if worker.code == ExitCode.TOO_MANY_FAILED:
                    reason = str(worker.summary.get("outcome", "too many rows failed"))
                    self._stop.request(reason, ExitCode.TOO_MANY_FAILED)
            self._tick(at_work)

    def _tick(self, at_work: Sequence[WorkerProcess]) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_count_s:
            self._count()
            self._next_count_s = now_s + _COUNT_S
        if now_s < self._next_tick_s:
            return
        self._next_tick_s = now_s + self._view.interval_s
        told = [worker.progress for worker in at_work if "rows" in worker.progress]
        self._view.tick(self._progress(told) if self._rows else None)

    def _progress(self, told: Sequence[Mapping[str, Any]]) -> Progress:
        def total(name: str) -> Any:
            return sum(progress[name] for progress in told)

        return Progress(
            rows=self._rows,
            done=self._done,
            failed=self._errors.total(),
            elapsed_s=self._span.seconds,
            prompt_tokens=total("prompt_tokens"),
            output_tokens=total("output_tokens"),
            input_tokens_per_s=total("input_tokens_per_s"),
            output_tokens_per_s=total("output_tokens_per_s"),
            running=total("running"),
            gpu_bytes=total("gpu_bytes"),
            gpu_budget=total("gpu_budget"),
            cpu_bytes=total("cpu_bytes"),
            cpu_budget=total("cpu_budget"),
            share=self._done / self._rows,
            eta_s=together_s(progress["eta_s"] for progress in told),
            planned_output_tokens_per_s=total("planned_output_tokens_per_s"),
        )

    def _count(self) -> None:
        """Looks at the folder; `_rows` stays 0 until a run has begun there."""
        manifest = read_manifest(self._place.manifest)
        if manifest is None:
            return
        if self._counts is None or self._counts.manifest.fingerprint != manifest.fingerprint:
            self._counts = FolderCounts(self._place, manifest)
        self._rows, self._manifest = manifest.rows, manifest
        self._done, self._errors = self._counts.count()

    @property
    def _complete(self) -> bool:
        return self._manifest is not None and self._manifest.state == "complete"

    def _summary(self) -> Summary:
        """What all of them came to together."""
        parts = [worker.summary for worker in self._all if worker.summary]

        def total(name: str) -> Any:
            return sum(part[name] for part in parts)

        own = sum(part["done"] - part["earlier"] for part in parts)
        own_failed = sum(part["failed"] - part["earlier_failed"] for part in parts)
        marks = [part["accuracy"] for part in parts if part["accuracy"]]
        right, marked = (sum(mark[name] for mark in marks) for name in ("right", "rows"))
        code, outcome = self._outcome()
        return Summary(
            exit_code=int(code),
            outcome=outcome,
            output=name_of(self._place),
            rows=self._rows,
            done=self._done,
            failed=self._errors.total(),
            earlier=self._done - own,
            earlier_failed=self._errors.total() - own_failed,
            errors=dict(self._errors),
            examples={k: v for part in parts for k, v in part["examples"].items()},
            input_tokens=total("input_tokens"),
            output_tokens=total("output_tokens"),
            seconds=max((part["seconds"] for part in parts), default=0.0),
            total_seconds=self._span.seconds,
            flops_per_s=total("flops_per_s"),
            peak_gpu_bytes=total("peak_gpu_bytes"),
            gpu_budget=total("gpu_budget"),
            peak_cpu_bytes=total("peak_cpu_bytes"),
            cpu_budget=total("cpu_budget"),
            accuracy=Accuracy(right, marked) if marks else None,
            shared=True,
        )

    def _outcome(self) -> tuple[ExitCode, str]:
        if self._complete:
            allowed = self._order.options.allow_failures
            return code_of_failures(self._errors.total(), self._rows, allowed), "finished"
        if self._stop.code is not None:
            return self._stop.code, self._stop.reason
        if all(worker.code == ExitCode.FINISHED for worker in self._all):
            return ExitCode.FINISHED, "left"
        refused = [worker.code for worker in self._all if worker.code and not worker.died]
        if refused:
            return ExitCode(refused[0]), "no process could go on"
        return ExitCode.INTERNAL_ERROR, "every process died"
