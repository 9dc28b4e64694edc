"""Nothing while all is well: for cron, whose mail should mean something."""

from __future__ import annotations

from typing import TextIO

from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.progress import Progress
from tightrun.cli.summary import Summary, error_lines, headline
from tightrun.policies.planner import JobPlan


class QuietView:
    """Silent, except for what was wrong when the run did not end well."""

    interval_s = 30.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def title(self, text: str) -> None:
        pass

    def phase(self, name: str, detail: str = "", *, broke_off: bool = False) -> None:
        pass

    def detail(self, text: str) -> None:
        pass

    def tick(self, progress: Progress | None) -> None:
        pass

    def plan(self, job_plan: JobPlan) -> None:
        pass

    def fact(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def error(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def prompt(self, place: str, text: str) -> None:
        pass

    def close(self, *, good: bool) -> None:
        pass

    def closing(self, summary: Summary) -> None:
        if summary.exit_code == ExitCode.FINISHED:
            return
        print(f"tightrun: {headline(summary)} Output: {summary.output}", file=self._stream)
        for line in error_lines(summary):
            print(f"  {line}", file=self._stream)
        self._stream.flush()

    def abort(self) -> None:
        pass
