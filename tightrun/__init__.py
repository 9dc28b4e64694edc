"""Runs a large offline LLM job to its end on the hardware at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tightrun.cli.summary import Summary
    from tightrun.io.job import Job

__all__ = ["run"]


def run(
    job: str | Path | Mapping[str, Any] | Job,
    *,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    new: bool = False,
    quiet: bool = False,
) -> Summary:
    """Runs a job, as `tightrun run` does, and returns its summary.

    `job` is a job file, the same as a mapping, or a Job. `overrides` are those of `--set`,
    `limit` runs the first rows only, `new` moves earlier output at the same place aside, `quiet`
    shows nothing while all is well. Failed rows are no exception: see `exit_code`, `failed` and
    `errors` of the summary. Raises ValueError (JobError, InputError, OutputError, RefusedError,
    DoesNotFitError) when the job cannot be run as it is. On KeyboardInterrupt the rows that were
    finished are kept in the output, as after a signal.
    """
    import os

    from tightrun.cli.log_format import LogFormat
    from tightrun.cli.run import RunOptions, run_job
    from tightrun.cli.views import open_view
    from tightrun.io.job import load_job

    loaded = load_job(job, overrides=overrides)
    view = open_view(LogFormat.AUTO, quiet=quiet, environment=os.environ)
    return run_job(loaded, RunOptions(limit=limit, resume="new" if new else "auto"), view=view)
