"""An engine without a model: it answers at once by a rule, so that all around it can be tested."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from tightrun.cli.engine_seam import EngineFactory
from tightrun.core import (
    Completion,
    Request,
    RowError,
    RunNote,
    Sample,
    StepRecord,
    TraceSpan,
    Written,
)
from tightrun.io.inputs import Scan
from tightrun.io.job import Job
from tightrun.policies.measured import Comparison
from tightrun.policies.output_shares import Learnt
from tightrun.policies.planner import JobPlan

Rule = Callable[[Request], str | RowError]


def echo(request: Request) -> str:
    """The prompt, or the last message of a chat, in upper case."""
    if isinstance(request.prompt, str):
        return request.prompt.upper()
    return str(request.prompt[-1]["content"]).upper()


@dataclass
class FakeEngine:
    """Finishes each request in a thread of its own, one word a token; a step every 10 rows.

    `before` is called in that thread before a row is finished, and may block or raise. `tell` says
    what is told of the pass of an iteration, `figures` are put over those of the summary, `notes`
    are said at the end. `written` says what the unfinished rows have drawn.
    """

    rule: Rule = echo
    before: Callable[[Request], None] = lambda _request: None
    tell: Callable[[int], tuple[StepRecord, list[TraceSpan]]] = lambda iteration: (
        step(iteration),
        [],
    )
    figures: dict[str, Any] = field(default_factory=dict)
    notes: tuple[RunNote, ...] = ()
    written: Callable[[Callable[[int, int, int], int]], list[Written]] = lambda _known: []
    learnt: Learnt = field(default_factory=Learnt)
    remembered: Learnt | None = None
    planned: JobPlan | None = None
    closed: bool = False
    seen: list[Request] = field(default_factory=list)
    prompt_tokens: int = 0
    output_tokens: int = 0

    def run(
        self,
        items: Iterable[Request],
        finish: Callable[[Completion], None],
        on_step: Callable[[StepRecord], None],
        stop: threading.Event,
        on_trace: Callable[[list[TraceSpan]], None] | None = None,
        on_note: Callable[[RunNote], None] | None = None,
    ) -> None:
        errors: list[BaseException] = []

        def work() -> None:
            try:
                for request in items:
                    if stop.is_set():
                        return
                    self.before(request)
                    self.seen.append(request)
                    finish(self._answer(request))
                    if len(self.seen) % 10 == 1:
                        record, spans = self.tell(len(self.seen) // 10)
                        on_step(record)
                        if on_trace is not None:
                            on_trace(spans)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        for note in self.notes:
            assert on_note is not None
            on_note(note)

    def _answer(self, request: Request) -> Completion:
        answer = self.rule(request)
        seed = request.sampling.seed
        if isinstance(answer, RowError):
            attempt = request.attempt
            return Completion(
                request.row_index, request.id, seed=seed, attempt=attempt, error=answer
            )
        sample = Sample(answer, "stop", completion_tokens=len(answer.split()))
        prompt_tokens = len(str(request.prompt).split())
        self.prompt_tokens += prompt_tokens
        self.output_tokens += sample.completion_tokens
        self.learnt.add(sample.completion_tokens, request.sampling.max_tokens)
        samples = (sample,) * request.sampling.n
        about = (request.row_index, request.id, samples, prompt_tokens, seed)
        return Completion(*about, attempt=request.attempt)

    def unfinished(self, known: Callable[[int, int, int], int]) -> list[Written]:
        return self.written(known)

    def snapshot(self) -> SimpleNamespace:
        return SimpleNamespace(
            running=0,
            waiting=0,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            predicted_remaining_tokens=0,
            gpu_bytes=0,
            gpu_budget=0,
            cpu_bytes=2**28,
            cpu_budget=2**30,
            planned_output_tokens_per_s=0.0,
            mean_output_tokens=0.0,
            planned_seconds=0.0,
        )

    def summary(self) -> SimpleNamespace:
        figures: dict[str, Any] = {
            "flops_per_s": 1.5e12,
            "bound_share": 0.7,
            "binding": "compute",
            "peak_gpu_bytes": 0,
            "peak_cpu_bytes": 2**29,
            "h2d_bytes_per_s": 0.0,
            "d2h_bytes_per_s": 0.0,
            "disk_bytes_per_s": 0.0,
            "idle_s": 0.0,
            "recompute_ratio": 0.0,
            "recompute_form": "",
            "comparison": Comparison(),
            "learnt": self.learnt,
        }
        return SimpleNamespace(**(figures | self.figures))

    def describe(self) -> list[str]:
        return ["Fake, 0 parameters", "1 sequence at a time"]

    def job_plan(self) -> JobPlan | None:
        return self.planned

    def close(self) -> None:
        self.closed = True


def factory(engine: FakeEngine) -> EngineFactory:
    """Hands out `engine`, after saying what a real one would say."""

    def load(
        _job: Job, _scan: Scan, _rows: int, notify: Callable[[str], None], learnt: Learnt | None
    ) -> FakeEngine:
        notify("loading nothing")
        notify("warm-up: none")
        engine.remembered = learnt
        return engine

    return load


def step(iteration: int) -> StepRecord:
    """A pass that took no time."""
    return StepRecord(
        run=1,
        iteration=iteration,
        phase="mixed",
        started_s=0.0,
        elapsed_s=0.0,
        batches=1,
        sequences=1,
        prefill_tokens=1,
        decode_tokens=1,
        context_tokens=1,
    )
