"""A job run from the command line: view, signals, errors and the exit code around `run_job`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tightrun.cli.errors import explain
from tightrun.cli.log_format import LogFormat
from tightrun.cli.run import RunOptions, run_job
from tightrun.cli.start_engine import start_engine
from tightrun.cli.stopping import Stop, stop_on_signals
from tightrun.cli.views import open_view
from tightrun.io.job import load_job


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
    stop = Stop()

    def tell(signal_name: str) -> None:
        view.note(f"{signal_name}: keeping what is finished and ending; again ends at once")

    try:
        job = load_job(source, overrides=overrides)
        with stop_on_signals(stop, first=tell, last=view.abort):
            summary = run_job(
                job,
                options,
                view=view,
                stop=stop,
                engine_factory=start_engine,
                stdin=sys.stdin.buffer,
            )
    except Exception as error:
        text, code = explain(error)
        view.error(text)
        return code
    return summary.exit_code
