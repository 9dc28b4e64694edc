"""From what was counted and measured to the summary of a run and its row of the report."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from tightrun.cli.engine_seam import Engine
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.generation import Generation
from tightrun.cli.stopping import Stop
from tightrun.cli.summary import Summary, short_path
from tightrun.core import RunRecord
from tightrun.io.manifest import utc_now
from tightrun.io.outputs import OutputPlace
from tightrun.io.quantities import Tolerance


@dataclass(frozen=True, slots=True)
class Span:
    """When a run began: for people in UTC, for differences by the monotonic clock."""

    started: str
    began_s: float

    @classmethod
    def begin(cls) -> Span:
        return cls(utc_now(), time.monotonic())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began_s


def summarise(
    generation: Generation,
    engine: Engine,
    stop: Stop,
    place: OutputPlace,
    span: Span,
    allowed: Tolerance | None,
) -> Summary:
    """The summary of a run whose generation has ended and whose output is sealed."""
    tally, figures, now = generation.tally, engine.summary(), engine.snapshot()
    code = _exit_code(generation, stop, allowed)
    comparison = figures.comparison
    if generation.complete and generation.seconds:
        # Of a whole run, the speed that the summary tells: the waiting between passes is in it.
        tokens_per_s = tally.output_tokens / generation.seconds
        measured = replace(
            comparison.measured, seconds=generation.seconds, output_tokens_per_s=tokens_per_s
        )
        comparison = replace(comparison, measured=measured)
    stopped = code in (ExitCode.STOPPED, ExitCode.TOO_MANY_FAILED)
    return Summary(
        exit_code=int(code),
        outcome=stop.reason if stopped else "finished",
        output=short_path(place.target),
        rows=generation.rows,
        done=tally.done,
        failed=tally.failed,
        errors=dict(tally.errors),
        examples=dict(tally.examples),
        input_tokens=tally.input_tokens,
        output_tokens=tally.output_tokens,
        seconds=generation.seconds,
        total_seconds=span.seconds,
        flops_per_s=figures.flops_per_s,
        bound_share=figures.bound_share,
        binding=figures.binding,
        peak_gpu_bytes=figures.peak_gpu_bytes,
        gpu_budget=now.gpu_budget,
        peak_cpu_bytes=figures.peak_cpu_bytes,
        cpu_budget=now.cpu_budget,
        h2d_bytes_per_s=figures.h2d_bytes_per_s,
        d2h_bytes_per_s=figures.d2h_bytes_per_s,
        disk_bytes_per_s=figures.disk_bytes_per_s,
        idle_s=figures.idle_s,
        recompute_ratio=figures.recompute_ratio,
        recompute_form=figures.recompute_form,
        comparison=comparison,
        accuracy=generation.marking.result(),
    )


def stopped_before(stop: Stop, place: OutputPlace, rows: int, span: Span) -> Summary:
    """The summary of a run that was stopped before it began with the first row."""
    assert stop.code is not None
    return Summary(
        exit_code=int(stop.code),
        outcome=stop.reason,
        output=short_path(place.target),
        rows=rows,
        done=0,
        failed=0,
        total_seconds=span.seconds,
    )


def left_alone(place: OutputPlace) -> Summary:
    """The summary of a run that found another one at work, and was asked to leave it alone."""
    return Summary(
        exit_code=int(ExitCode.FINISHED),
        outcome="skipped, another run is at work",
        output=short_path(place.target),
        rows=0,
        done=0,
        failed=0,
    )


def run_record(summary: Summary, run: int, started: str) -> RunRecord:
    """The row of the report table."""
    return RunRecord(
        run=run,
        started=started,
        ended=utc_now(),
        exit_code=summary.exit_code,
        rows=summary.done,
        failed=summary.failed,
        input_tokens=summary.input_tokens,
        output_tokens=summary.output_tokens,
        seconds=summary.seconds,
        output_tokens_per_s=summary.output_tokens_per_s,
        planned_output_tokens_per_s=summary.comparison.planned.output_tokens_per_s,
        binding=summary.binding,
        bound_share=summary.bound_share,
        h2d_bytes_per_s=summary.h2d_bytes_per_s,
        d2h_bytes_per_s=summary.d2h_bytes_per_s,
        disk_bytes_per_s=summary.disk_bytes_per_s,
        flops_per_s=summary.flops_per_s,
        idle_s=summary.idle_s,
        peak_gpu_bytes=summary.peak_gpu_bytes,
        peak_cpu_bytes=summary.peak_cpu_bytes,
    )


def _exit_code(generation: Generation, stop: Stop, allowed: Tolerance | None) -> ExitCode:
    """A stop that came too late to keep a row from finishing is none, unless rows failed."""
    if stop.code is ExitCode.TOO_MANY_FAILED or (stop.code and not generation.complete):
        return stop.code
    failed = generation.tally.failed
    if failed == 0 or (allowed is not None and allowed.allows(failed, generation.rows)):
        return ExitCode.FINISHED
    return ExitCode.ROWS_FAILED
