"""A job run from the command line: view, signals, errors and the exit code around it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tightrun.cli.errors import explain
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.log_format import LogFormat
from tightrun.cli.run import RunOptions, run_job
from tightrun.cli.start_engine import start_engine
from tightrun.cli.stopping import Stop, StoppedError, stop_on_signals
from tightrun.cli.summary import Summary
from tightrun.cli.views import View, open_view
from tightrun.cli.worker_places import worker_places
from tightrun.cli.worker_process import Order
from tightrun.cli.workers import Workers
from tightrun.io.job import Job, load_job
from tightrun.io.owner import Here
from tightrun.runtime.system import System


def perform(
    source: Path | Mapping[str, Any],
    overrides: Sequence[str],
    options: RunOptions,
    *,
    log_format: LogFormat,
    quiet: bool,
) -> int:
    """Runs the job in this process, which must be in its main thread, and returns the exit code."""
    view = open_view(log_format, quiet=quiet, environment=os.environ)
    return perform_shown(source, overrides, options, view, Stop())


def perform_shown(
    source: Path | Mapping[str, Any],
    overrides: Sequence[str],
    options: RunOptions,
    view: View,
    stop: Stop,
) -> int:
    """The same, shown in a view and ended by a stop that are given."""

    def run() -> Summary:
        with stop_on_signals(stop, first=_teller(view), last=view.abort):
            with stop.nothing_to_save():
                job = load_job(source, overrides=overrides)
            return _run_here(job, options, view, stop)

    return _exit_code(run, view)


def perform_workers(
    source: Path,
    overrides: Sequence[str],
    options: RunOptions,
    workers: int | None,
    *,
    log_format: LogFormat,
    quiet: bool,
) -> int:
    """Runs the job in so many processes, None for one per GPU, and returns the exit code."""
    view = open_view(log_format, quiet=quiet, environment=os.environ)
    stop = Stop()

    def run() -> Summary:
        job = load_job(source, overrides=overrides)
        places = worker_places(job, workers, System())
        if len(places) == 1:
            with stop_on_signals(stop, first=_teller(view), last=view.abort):
                return _run_here(job, options, view, stop)
        team = Workers(job, Order(source, overrides, options), places, view, stop)

        def last() -> None:
            team.kill()
            view.abort()

        with stop_on_signals(stop, first=_teller(view), last=last):
            return team.run(Here.of(os.environ))

    return _exit_code(run, view)


def _run_here(job: Job, options: RunOptions, view: View, stop: Stop) -> Summary:
    return run_job(
        job,
        options,
        view=view,
        stop=stop,
        engine_factory=start_engine,
        stdin=sys.stdin.buffer,
    )


def _teller(view: View) -> Callable[[str], None]:
    def tell(signal_name: str) -> None:
        view.note(f"{signal_name}: keeping what is finished and ending; again ends at once")

    return tell


def _exit_code(run: Callable[[], Summary], view: View) -> int:
    try:
        return run().exit_code
    except StoppedError:
        # Before there was anything to sum up.
        return ExitCode.STOPPED
    except Exception as error:
        text, code = explain(error)
        view.error(text)
        return code
