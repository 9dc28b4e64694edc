"""The ways to show a run while it goes, and which one fits the place it runs in."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Protocol, TextIO

from tightrun.cli.log_format import LogFormat
from tightrun.cli.progress import Progress
from tightrun.cli.summary import Summary
from tightrun.policies.planner import JobPlan


class View(Protocol):
    """Shows a run. Every method may be called from any thread.

    `interval_s` is the time between two calls of `tick`. A phase lasts until the next begins
    or until `close`, which say whether it broke off; `detail` says what it does now, and at its
    end what it came to.
    """

    interval_s: float

    def title(self, text: str) -> None: ...

    def phase(self, name: str, detail: str = "", *, broke_off: bool = False) -> None: ...

    def detail(self, text: str) -> None: ...

    def tick(self, progress: Progress | None) -> None: ...

    def plan(self, job_plan: JobPlan) -> None:
        """What was decided for the run, in as many words as fit the place."""

    def fact(self, text: str) -> None:
        """Something to know about the run."""

    def note(self, text: str) -> None:
        """Something a person should look at."""

    def error(self, text: str) -> None:
        """Why the run cannot go on."""

    def prompt(self, place: str, text: str) -> None: ...

    def close(self, *, good: bool) -> None: ...

    def closing(self, summary: Summary) -> None: ...

    def abort(self) -> None:
        """Leaves the terminal usable; must not wait, for the process ends right after."""


def open_view(
    log_format: LogFormat,
    *,
    quiet: bool,
    environment: Mapping[str, str],
    progress: TextIO | None = None,
    closing: TextIO | None = None,
) -> View:
    """The view that fits. Progress goes to `progress` (standard error), the closing summary to
    `closing` (standard output). Never loads what another view needs."""
    progress, closing = progress or sys.stderr, closing or sys.stdout
    chosen = fitting(log_format, progress, environment)
    if quiet:
        from tightrun.cli.view_quiet import QuietView

        return QuietView(progress)
    if chosen is LogFormat.RICH:
        from tightrun.cli.view_rich import RichView

        return RichView(progress, closing)
    if chosen is LogFormat.JSON:
        from tightrun.cli.view_json import JsonView

        return JsonView(progress)
    from tightrun.cli.view_plain import PlainView

    return PlainView(progress, closing)


def fitting(log_format: LogFormat, stream: TextIO, environment: Mapping[str, str]) -> LogFormat:
    """The format that `auto` means for a stream: rich on a terminal that can show it."""
    if log_format is not LogFormat.AUTO:
        return log_format
    dumb = environment.get("TERM", "") in ("dumb", "") or bool(environment.get("CI"))
    return LogFormat.RICH if stream.isatty() and not dumb else LogFormat.PLAIN
