"""`tightrun validate`: the job file and every row of its input, without a model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tightrun.cli import units
from tightrun.cli.exit_codes import ExitCode
from tightrun.io.job import Job, load_job
from tightrun.io.validation import ValidationReport, validate_inputs


def validate(path: Path, overrides: Sequence[str]) -> ExitCode:
    """Prints what was found; ROWS_FAILED when rows would be error rows.

    Raises JobError or InputError for what would stop the job before its first row.
    """
    job = load_job(path, overrides=overrides)
    report = validate_inputs(job, stdin=sys.stdin.buffer)
    print("\n".join(_lines(job, report)))
    return ExitCode.ROWS_FAILED if report.failed else ExitCode.FINISHED


def _lines(job: Job, report: ValidationReport) -> list[str]:
    files = units.files(report.files)
    lines = [f"{units.rows(report.rows)} in {files}", f"columns: {', '.join(report.columns)}"]
    lines += [f"note: {warning}" for warning in report.warnings]
    if not report.failed:
        return [*lines, "The job is valid, and every row can be read."]
    codes = ", ".join(f"{units.count(number)} {code}" for code, number in report.codes.items())
    lines.append(f"{units.rows(report.failed)} would fail: {codes}")
    lines += [f"  {place}: {code}: {message}" for place, code, message in report.problems]
    hidden = report.failed - len(report.problems)
    if hidden:
        lines.append(f"  and {units.count(hidden)} more")
    limit = job.limits.max_failed
    if limit is not None and not limit.allows(report.failed, report.rows):
        lines.append(f"That is more than limits.max_failed ({limit}): the run would stop early.")
    return lines
