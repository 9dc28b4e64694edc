"""From what was counted and measured to the summary of a run and its row of the report."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from tightrun.cli.engine_seam import Engine
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.generation import Generation
from tightrun.cli.output_at import name_of
from tightrun.cli.stopping import Stop
from tightrun.cli.summary import Summary
from tightrun.core import RunRecord
from tightrun.io.manifest import utc_now
from tightrun.io.outputs import OutputPlace, OutputWriter
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
    whole = generation.complete and not tally.earlier
    comparison = figures.comparison
    if whole and generation.seconds:
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
        output=name_of(place),
        rows=generation.rows,
        done=tally.done,
        failed=tally.failed,
        earlier=tally.earlier,
        earlier_failed=tally.earlier_failed,
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


def as_left(summary: Summary, writer: OutputWriter) -> Summary:
    """The summary of a run by what became of the output when it left it."""
    if not writer.shared or summary.exit_code not in (ExitCode.FINISHED, ExitCode.ROWS_FAILED):
        return summary
    if writer.state is None:
        return left_to_others(summary)
    if writer.state == "stopped":
        outcome = "the runs that were at work on the rest are gone, run the job again"
        return replace(summary, exit_code=int(ExitCode.STOPPED), outcome=outcome)
    return replace(summary, shared=True)


def left_to_others(summary: Summary) -> Summary:
    """The same of a run that others, who share the output, conclude for: it ended well."""
    return replace(summary, exit_code=int(ExitCode.FINISHED), outcome="left", shared=True)


def stopped_before(
    stop: Stop, place: OutputPlace, writer: OutputWriter | None, span: Span
) -> Summary:
    """The summary of a run that was stopped before it began with its first row."""
    assert stop.code is not None
    if writer is None:
        output, seconds = name_of(place), span.seconds
        return Summary(int(stop.code), stop.reason, output, 0, 0, 0, total_seconds=seconds)
    return _of_earlier_runs(writer, place, span, stop.code, stop.reason)


def nothing_left(
    writer: OutputWriter, place: OutputPlace, span: Span, allowed: Tolerance | None
) -> Summary:
    """The summary of a run that found all rows finished, and only had to write them to shards."""
    code = code_of_failures(writer.rows_failed, writer.rows, allowed)
    return _of_earlier_runs(writer, place, span, code, "finished")


def _of_earlier_runs(
    writer: OutputWriter, place: OutputPlace, span: Span, code: ExitCode, outcome: str
) -> Summary:
    return Summary(
        exit_code=int(code),
        outcome=outcome,
        output=name_of(place),
        rows=writer.rows,
        done=writer.rows_done,
        failed=writer.rows_failed,
        earlier=writer.rows_done,
        earlier_failed=writer.rows_failed,
        errors=dict(writer.error_counts),
        total_seconds=span.seconds,
    )


def left_alone(place: OutputPlace) -> Summary:
    """The summary of a run that found another one at work, and was asked to leave it alone."""
    return Summary(
        exit_code=int(ExitCode.FINISHED),
        outcome="skipped, another run is at work",
        output=name_of(place),
        rows=0,
        done=0,
        failed=0,
    )


def run_record(summary: Summary, run: int, started: str) -> RunRecord:
    """The row of the report table: what this run did, without the rows of earlier ones."""
    return RunRecord(
        run=run,
        started=started,
        ended=utc_now(),
        exit_code=summary.exit_code,
        rows=summary.done - summary.earlier,
        failed=summary.failed - summary.earlier_failed,
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
    return code_of_failures(generation.tally.failed, generation.rows, allowed)


def code_of_failures(failed: int, rows: int, allowed: Tolerance | None) -> ExitCode:
    """The exit code of a job whose rows have all come to their end."""
    if failed == 0 or (allowed is not None and allowed.allows(failed, rows)):
        return ExitCode.FINISHED
    return ExitCode.ROWS_FAILED
