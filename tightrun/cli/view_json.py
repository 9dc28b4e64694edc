"""One JSON object per line on standard error, for programs that watch a run."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

from tightrun.cli.plan_json import job_plan_json
from tightrun.cli.progress import Progress
from tightrun.cli.summary import Summary
from tightrun.policies.planner import JobPlan


class JsonView:
    """Lines `{"time", "event", ...}`; events are start, phase, phase_end, plan, progress, fact,
    note, prompt, error and summary."""

    interval_s = 30.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._phase = ""
        self._detail = ""
        self._began_s = 0.0

    def title(self, text: str) -> None:
        self._write("start", title=text)

    def phase(self, name: str, detail: str = "", *, broke_off: bool = False) -> None:
        self._end_phase(good=not broke_off)
        self._phase, self._detail, self._began_s = name, detail, time.monotonic()
        self._write("phase", phase=name, detail=detail)

    def detail(self, text: str) -> None:
        self._detail = text

    def tick(self, progress: Progress | None) -> None:
        figures = asdict(progress) if progress is not None else {}
        self._write("progress", phase=self._phase, detail=self._detail, **figures)

    def plan(self, job_plan: JobPlan) -> None:
        self._write("plan", **job_plan_json(job_plan))

    def fact(self, text: str) -> None:
        self._write("fact", text=text)

    def note(self, text: str) -> None:
        self._write("note", text=text)

    def error(self, text: str) -> None:
        self._write("error", text=text)

    def prompt(self, place: str, text: str) -> None:
        self._write("prompt", place=place, text=text)

    def close(self, *, good: bool) -> None:
        self._end_phase(good=good)

    def closing(self, summary: Summary) -> None:
        self._write("summary", **summary.as_json())

    def abort(self) -> None:
        pass

    def _end_phase(self, *, good: bool) -> None:
        if self._phase:
            seconds = round(time.monotonic() - self._began_s, 3)
            self._write(
                "phase_end", phase=self._phase, detail=self._detail, seconds=seconds, good=good
            )
            self._phase = ""

    def _write(self, event: str, **fields: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = orjson.dumps({"time": now, "event": event, **fields}).decode()
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()
