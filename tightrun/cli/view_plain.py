"""Plain lines for pipes and log files: one per phase, and one every 30 seconds between."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from typing import TextIO

from tightrun.cli import units
from tightrun.cli.plan_lines import now_against_plan
from tightrun.cli.plan_text import short_lines
from tightrun.cli.progress import Progress
from tightrun.cli.summary import Summary, closing_lines, headline
from tightrun.policies.planner import JobPlan

_LABEL = 9


class PlainView:
    """ASCII lines with the time of day; nothing is ever rewritten."""

    interval_s = 30.0

    def __init__(self, progress: TextIO, closing: TextIO) -> None:
        self._stream, self._closing = progress, closing
        self._lock = threading.Lock()
        self._phase = ""
        self._detail = ""
        self._began_s = 0.0

    def title(self, text: str) -> None:
        self._line(text)

    def phase(self, name: str, detail: str = "", *, broke_off: bool = False) -> None:
        self._end_phase(good=not broke_off)
        self._phase, self._detail, self._began_s = name, detail, time.monotonic()

    def detail(self, text: str) -> None:
        self._detail = text

    def tick(self, progress: Progress | None) -> None:
        if progress is not None:
            self._labelled(self._phase, progress_line(progress))
        elif self._phase:
            took = units.duration(time.monotonic() - self._began_s)
            self._labelled(self._phase, f"{self._detail or 'under way'} ({took} so far)")

    def plan(self, job_plan: JobPlan) -> None:
        for line in short_lines(job_plan):
            self._labelled("", line)

    def fact(self, text: str) -> None:
        self._labelled("", text)

    def note(self, text: str) -> None:
        self._line(f"note: {text}")

    def error(self, text: str) -> None:
        with self._lock:
            print(text, file=self._stream, flush=True)

    def prompt(self, place: str, text: str) -> None:
        indented = "\n".join(f"    {line}" for line in text.splitlines())
        self._line(f"{place}\n{indented}")

    def close(self, *, good: bool) -> None:
        self._end_phase(good=good)

    def closing(self, summary: Summary) -> None:
        with self._lock:
            print(closing_text(summary), file=self._closing, flush=True)

    def abort(self) -> None:
        pass

    def _end_phase(self, *, good: bool) -> None:
        if not self._phase:
            return
        took = units.duration(time.monotonic() - self._began_s)
        text = self._detail if good else f"did not finish; {self._detail}".rstrip("; ")
        self._labelled(self._phase, f"{text} ({took})".lstrip())
        self._phase = ""

    def _labelled(self, label: str, text: str) -> None:
        self._line(f"{label:<{_LABEL}}{text}")

    def _line(self, text: str) -> None:
        with self._lock:
            print(f"{datetime.now():%H:%M:%S}  {text}", file=self._stream, flush=True)


def progress_line(progress: Progress) -> str:
    """How far the run is, in one line."""
    parts = [
        f"{units.count(progress.done)} of {units.rows(progress.rows)}",
        f"{units.count(progress.failed)} failed" if progress.failed else "",
        f"{units.rate(progress.input_tokens_per_s)} in",
        f"{units.rate(progress.output_tokens_per_s)} out",
        now_against_plan(progress),
        *memory_parts(progress),
        time_left(progress),
    ]
    return ", ".join(part for part in parts if part)


def memory_parts(progress: Progress) -> list[str]:
    """Memory in use against its budget, the GPU first; a memory without a budget has no part."""
    parts = []
    if progress.gpu_budget:
        parts.append(f"GPU {units.size_of(progress.gpu_bytes, progress.gpu_budget)}")
    if progress.cpu_budget:
        parts.append(f"CPU {units.size_of(progress.cpu_bytes, progress.cpu_budget)}")
    return parts


def time_left(progress: Progress) -> str:
    """The time left as a phrase; empty while unknown."""
    return "" if progress.eta_s is None else f"{units.time_left(progress.eta_s)} left"


def closing_text(summary: Summary) -> str:
    """The closing summary as aligned plain text, with an empty line before it."""
    lines = [f"  {label:<10}{text}" for label, text in closing_lines(summary)]
    return "\n".join(["", headline(summary), *lines])
