"""`tightrun plan`: what a job would do here, how fast, and whether it fits; nothing is run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, TextIO

import orjson

from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.known import known_for
from tightrun.cli.learnt import learnt_before, manifest_before
from tightrun.cli.output_at import place_of
from tightrun.cli.plan_json import planned_json
from tightrun.cli.plan_text import headline, planned_sections
from tightrun.cli.planning import KnownFor, Notify, Planned, input_facts, plan_here, plan_there
from tightrun.cli.sections import print_sections
from tightrun.io.fingerprint import fingerprint_parts
from tightrun.io.inputs import Scan, scan_inputs
from tightrun.io.job import Job, Machine, load_job, load_machine

STDIN_NOTE = (
    "standard input was read to its end for this plan, and cannot be read again: pipe it in anew "
    "to run the job"
)


def print_plan(
    file: Path,
    overrides: Sequence[str],
    limit: int | None,
    *,
    as_json: bool,
    machine_file: Path | None = None,
) -> ExitCode:
    """Plans a job and prints what comes of it to standard output, notes to standard error.

    Raises JobError, InputError or RefusedError for what would stop the job before its first row.
    """
    job = load_job(file, overrides=overrides)
    machine = None if machine_file is None else load_machine(machine_file)
    planned = plan_of(job, limit, known_for, say, machine=machine, stdin=sys.stdin.buffer)
    return print_planned(planned, as_json=as_json)


def plan_of(
    job: Job,
    limit: int | None,
    known_for: KnownFor,
    notify: Notify,
    *,
    machine: Machine | None = None,
    stdin: BinaryIO | None = None,
) -> Planned:
    """The plan of a job, for `machine` if one is given. Writes nothing but copies that are removed
    again. Raises InputError, RefusedError for what would stop the job before its first row.
    """
    with TemporaryDirectory(prefix="tightrun-") as folder:
        scan = scan_inputs(job, spool=Path(folder), stdin=stdin)
        for warning in scan.warnings:
            notify(warning)
        rows = scan.rows if limit is None else min(scan.rows, limit)
        facts = input_facts(job, scan, rows, notify, _learnt_share(job, scan))
        del scan
    if "-" in job.input.path:
        notify(STDIN_NOTE)
    if machine is not None:
        return plan_there(job, machine, facts, known_for, notify)
    return plan_here(job, facts, known_for, notify)


def print_planned(planned: Planned, *, as_json: bool, out: TextIO | None = None) -> ExitCode:
    """Prints the plan; DOES_NOT_FIT where there is none."""
    out = out or sys.stdout
    fits = planned.job_plan is not None
    if as_json:
        print(orjson.dumps(planned_json(planned)).decode(), file=out)
    else:
        print_sections(headline(planned), planned_sections(planned), out, good=fits)
    return ExitCode.FINISHED if fits else ExitCode.DOES_NOT_FIT


def _learnt_share(job: Job, scan: Scan) -> float | None:
    earlier = manifest_before(place_of(job.output.path))
    learnt = learnt_before(earlier, fingerprint_parts(job, scan)) if earlier else None
    return None if learnt is None else learnt.mean_share


def say(text: str) -> None:
    """Says it on standard error, at once."""
    print(f"note: {text}", file=sys.stderr, flush=True)
