"""What the command line asks of an engine, so that tests can give it one without torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from tightrun.core import Completion, Request, RunNote, StepRecord, TraceSpan, Written
from tightrun.io.inputs import Scan
from tightrun.io.job import Job
from tightrun.policies.measured import Comparison
from tightrun.policies.output_shares import Learnt
from tightrun.policies.planner import JobPlan


class RefusedError(ValueError):
    """The engine will not run this model, or not on this device; the message says why."""


class Snapshot(Protocol):
    """The engine at one moment; token totals are since the start of the run.

    `mean_output_tokens` are those of one sample as learnt so far, `planned_seconds` the time of the
    whole run as far as it can be foreseen from its plan; 0.0 where that is not known.
    """

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def predicted_remaining_tokens(self) -> int: ...
    @property
    def gpu_bytes(self) -> int: ...
    @property
    def gpu_budget(self) -> int: ...
    @property
    def cpu_bytes(self) -> int: ...
    @property
    def cpu_budget(self) -> int: ...
    @property
    def planned_output_tokens_per_s(self) -> float: ...
    @property
    def mean_output_tokens(self) -> float: ...
    @property
    def planned_seconds(self) -> float: ...


class Figures(Protocol):
    """What the engine measured over the whole run; peaks in bytes.

    The rates of the links are over the time of the passes, `idle_s` is the part of it in which
    the device waited. `recompute_ratio` is the recomputed share of the context off the device,
    `comparison` the run against its plan, `learnt` how long its outputs were.
    """

    @property
    def flops_per_s(self) -> float: ...
    @property
    def bound_share(self) -> float: ...
    @property
    def binding(self) -> str: ...
    @property
    def peak_gpu_bytes(self) -> int: ...
    @property
    def peak_cpu_bytes(self) -> int: ...
    @property
    def h2d_bytes_per_s(self) -> float: ...
    @property
    def d2h_bytes_per_s(self) -> float: ...
    @property
    def disk_bytes_per_s(self) -> float: ...
    @property
    def idle_s(self) -> float: ...
    @property
    def recompute_ratio(self) -> float: ...
    @property
    def recompute_form(self) -> str: ...
    @property
    def comparison(self) -> Comparison: ...
    @property
    def learnt(self) -> Learnt: ...


class Engine(Protocol):
    """A loaded model that answers requests."""

    def run(
        self,
        items: Iterable[Request],
        finish: Callable[[Completion], None],
        on_step: Callable[[StepRecord], None],
        stop: threading.Event,
        on_trace: Callable[[list[TraceSpan]], None] | None = None,
        on_note: Callable[[RunNote], None] | None = None,
    ) -> None:
        """Runs all items. `on_step` is called after each pass, and then `on_trace` with what the
        links and the device did in it, `on_note` with what a person should know; all of them from
        the thread that called `run`."""

    def unfinished(self, known: Callable[[int, int, int], int]) -> list[Written]:
        """What the rows that have not finished have drawn, each sample beyond its first
        `known(row_index, sample, prompt)` tokens. From any thread; after `run`, what a stop left.
        """

    def remember(self, learnt: Learnt) -> None:
        """To begin with the output lengths that an earlier run of the job has learnt."""

    def snapshot(self) -> Snapshot: ...

    def describe(self) -> list[str]: ...

    def job_plan(self) -> JobPlan | None:
        """What was decided for the run; None where nothing could be predicted."""

    def summary(self) -> Figures: ...

    def close(self) -> None: ...


Notify = Callable[[str], None]
EngineFactory = Callable[[Job, Scan, int, Notify, Learnt | None], Engine]
"""Makes the engine for a job: (job, scan, rows, notify, learnt). `notify` is told what loading
does, `learnt` is what an earlier run of the job has learnt of its outputs, if there was one."""
