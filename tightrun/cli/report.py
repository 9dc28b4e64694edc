"""What an output says of its runs: the summary again, from the tables and the manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson

from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.output_at import look_at, name_of
from tightrun.cli.plan_lines import resource_lines
from tightrun.cli.summary import Accuracy, Summary
from tightrun.cli.view_plain import closing_text
from tightrun.core import RunRecord
from tightrun.io.manifest import Manifest, read_manifest
from tightrun.io.outputs import OutputError, OutputPlace
from tightrun.io.owner import Here
from tightrun.io.reports import read_runs
from tightrun.policies.measured import Comparison

SUMMARY_EVENT = "summary"


def manifest_at(place: OutputPlace) -> Manifest:
    """The manifest of an output. Raises OutputError where there is none."""
    try:
        manifest = read_manifest(place.manifest)
    except ValueError as error:
        raise OutputError(str(error)) from error
    if manifest is None:
        raise OutputError(
            f"{place.target} is not the output of a job: {place.manifest} is not there; "
            "name the output.path of the job"
        )
    return manifest


def print_report(out: str) -> None:
    """Prints to standard output what the last run of an output came to."""
    with look_at(out, Here.of(os.environ)) as (place, _):
        print(report_text(place))


def report_text(place: OutputPlace) -> str:
    """The closing summary of the last run, and each of its resources against the plan."""
    summary = latest_summary(place)
    table = [f"  {line}" for line in resource_lines(summary.comparison)]
    return "\n".join([closing_text(summary).lstrip("\n"), *([""] if table else []), *table])


def latest_summary(place: OutputPlace) -> Summary:
    """The summary of the last run that came to its end. Raises OutputError if none did.

    A run that was killed after its last row and before its report has the manifest's counts.

    What no table has (budgets, accuracy, recompute, examples of errors) is taken from the summary
    event.
    """
    manifest = manifest_at(place)
    runs = read_runs(place.target)
    if not runs and manifest.state == "complete":
        return _counted(manifest, place)
    if not runs:
        raise OutputError(
            f"{place.target} has no run that came to its end yet; see tightrun status"
        )
    # Where several shared the output, the one that concluded knows all of it.
    record = next((run for run in runs if run.run == manifest.run), runs[-1])
    event = _summary_event(place, record.run)
    if event.get("shared"):
        # Those that join have the manifest's beginning, or a later one of their own.
        record = _together([run for run in runs if run.started >= manifest.started], record)
    accuracy, compared = event.get("accuracy"), event.get("comparison")
    return Summary(
        exit_code=record.exit_code,
        outcome=event.get("outcome", manifest.state),
        output=name_of(place),
        rows=manifest.rows,
        done=manifest.rows_done,
        failed=manifest.rows_failed,
        earlier=manifest.rows_done - record.rows,
        earlier_failed=manifest.rows_failed - record.failed,
        errors=dict(manifest.errors),
        examples=event.get("examples", {}),
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        seconds=record.seconds,
        total_seconds=event.get("total_seconds", 0.0),
        flops_per_s=record.flops_per_s,
        bound_share=record.bound_share,
        binding=record.binding,
        peak_gpu_bytes=record.peak_gpu_bytes,
        gpu_budget=event.get("gpu_budget", 0),
        peak_cpu_bytes=record.peak_cpu_bytes,
        cpu_budget=event.get("cpu_budget", 0),
        h2d_bytes_per_s=record.h2d_bytes_per_s,
        d2h_bytes_per_s=record.d2h_bytes_per_s,
        disk_bytes_per_s=record.disk_bytes_per_s,
        idle_s=record.idle_s,
        recompute_ratio=event.get("recompute_ratio", 0.0),
        recompute_form=event.get("recompute_form", ""),
        comparison=Comparison.of(compared) if compared else Comparison(),
        accuracy=Accuracy(accuracy["right"], accuracy["rows"]) if accuracy else None,
        shared=event.get("shared", False),
    )


def _together(team: Sequence[RunRecord], last: RunRecord) -> RunRecord:
    """What runs that shared an output did at the same time; all else is of the `last` one."""

    def total(name: str) -> Any:
        return sum(getattr(run, name) for run in team)

    sums = (
        *("rows", "failed", "input_tokens", "output_tokens", "flops_per_s"),
        *("peak_gpu_bytes", "peak_cpu_bytes", "output_tokens_per_s"),
    )
    seconds = max((run.seconds for run in team), default=last.seconds)
    return replace(last, seconds=seconds, **{name: total(name) for name in sums})


def _counted(manifest: Manifest, place: OutputPlace) -> Summary:
    code = ExitCode.ROWS_FAILED if manifest.rows_failed else ExitCode.FINISHED
    return Summary(
        exit_code=int(code),
        outcome="finished",
        output=name_of(place),
        rows=manifest.rows,
        done=manifest.rows_done,
        failed=manifest.rows_failed,
        errors=dict(manifest.errors),
    )


def events_of(place: OutputPlace) -> Iterator[dict[str, Any]]:
    """The events of an output, oldest first; a line that a crash cut short is left out."""
    path = place.bookkeeping / "events.jsonl"
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            with suppress(orjson.JSONDecodeError):
                yield orjson.loads(line)


def _summary_event(place: OutputPlace, run: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for event in events_of(place):
        if event["event"] == SUMMARY_EVENT and event.get("run") == run:
            found = event
    return found
