"""How far an output has come, from its folder alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tightrun.cli import units
from tightrun.cli.earlier_end import earlier_end
from tightrun.cli.holding import locks_at
from tightrun.cli.report import events_of, read_place
from tightrun.cli.summary import short_path
from tightrun.io.lock import live_runs
from tightrun.io.owner import Here
from tightrun.runtime.memory_watch import MemoryWatch


@dataclass(frozen=True, slots=True)
class Status:
    """`state`: running, stopped, complete, or died (it says running, but no run lives there).

    `done` and `failed` of an unfinished run are as of `updated`, the time of its last event, and so
    is the speed of one that runs, beside the planned one. `end` says how one died.
    """

    output: str
    state: str
    rows: int
    done: int
    failed: int
    errors: dict[str, int]
    started: str
    ended: str | None
    updated: str | None
    eta_s: float | None
    output_tokens_per_s: float = 0.0
    planned_output_tokens_per_s: float = 0.0
    end: str = ""


def status_of(out: Path, here: Here | None = None) -> Status:
    """The status of an output, seen from `here`. Raises OutputError where there is none."""
    place, manifest = read_place(out)
    here = here or Here.of(os.environ)
    locks = locks_at(place.live, here)
    last: dict[str, Any] = {}
    progress: dict[str, Any] = {}
    for event in events_of(place):
        last = event
        if event["event"] == "started":
            progress = {}
        elif event["event"] == "progress":
            progress = event
    running = manifest.state == "running"
    told = progress if running else {}
    live = any(lives for _, lives in live_runs(place.live, locks))
    state = "died" if running and not live else manifest.state
    now = progress if state == "running" else {}
    end = None
    if state == "died":
        end = earlier_end(events_of(place), MemoryWatch(here.root), manifest.run)
    return Status(
        output=short_path(place.target),
        state=state,
        rows=manifest.rows,
        done=told.get("done", manifest.rows_done),
        failed=told.get("failed", manifest.rows_failed),
        errors=dict(manifest.errors),
        started=manifest.started,
        ended=manifest.ended,
        updated=last.get("time"),
        eta_s=now.get("eta_s"),
        output_tokens_per_s=now.get("output_tokens_per_s", 0.0),
        planned_output_tokens_per_s=now.get("planned_output_tokens_per_s", 0.0),
        end=end.text if end else "",
    )


def status_lines(status: Status) -> list[tuple[str, str]]:
    """The status as (label, text)."""
    share = units.percent(status.done / status.rows) if status.rows else ""
    rows = f"{units.count(status.done)} of {units.rows(status.rows)} done ({share})"
    if status.failed:
        rows += f", {units.count(status.failed)} failed"
    lines = [
        ("state", status.state),
        ("end", status.end),
        ("rows", rows),
        ("started", status.started),
        ("ended", status.ended or ""),
        ("updated", (status.updated or "") if status.ended is None else ""),
        ("speed", _speed(status)),
        ("time", f"about {units.time_left(status.eta_s)} left" if status.eta_s else ""),
        ("output", status.output),
    ]
    return [(label, text) for label, text in lines if text]


def _speed(status: Status) -> str:
    if not status.output_tokens_per_s:
        return ""
    speed = f"{units.rate(status.output_tokens_per_s)} out"
    planned = status.planned_output_tokens_per_s
    return f"{speed}, planned {units.tokens(planned)}" if planned else speed


def print_status(out: Path, *, as_json: bool) -> None:
    """Prints the status of an output to standard output."""
    status = status_of(out)
    if as_json:
        print(orjson.dumps(status).decode())
        return
    for label, text in status_lines(status):
        print(f"{label:<10}{text}")
