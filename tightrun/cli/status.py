"""How far an output has come, from its folder alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tightrun.cli import units
from tightrun.cli.earlier_end import earlier_end
from tightrun.cli.holding import locks_at
from tightrun.cli.output_at import look_at, name_of
from tightrun.cli.progress import together_s
from tightrun.cli.report import events_of, manifest_at
from tightrun.io.folder_counts import FolderCounts
from tightrun.io.lock import live_runs
from tightrun.io.outputs import OutputPlace
from tightrun.io.owner import Here
from tightrun.runtime.memory_watch import MemoryWatch


@dataclass(frozen=True, slots=True)
class Status:
    """`state`: running, stopped, complete, or died (it says running, but no run lives there).

    `live` is how many processes are at work. `done`, `failed` and `errors` are counted in shards
    and journals; speed, planned speed and time left are what the processes said last, together.
    `updated` is the time of the last event, `end` says how a run died.
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
    live: int = 0


def status_of(out: Path | str, here: Here | None = None) -> Status:
    """The status of an output, seen from `here`. Raises OutputError where there is none."""
    here = here or Here.of(os.environ)
    with look_at(str(out), here) as (place, elsewhere):
        return _status(place, here, elsewhere=elsewhere)


def _status(place: OutputPlace, here: Here, *, elsewhere: bool) -> Status:
    manifest = manifest_at(place)
    locks = locks_at(place.live, here)
    live = [run.run for run, lives in live_runs(place.live, locks) if lives]
    last: dict[str, Any] = {}
    told: dict[int, dict[str, Any]] = {}
    for event in events_of(place):
        last = event
        run = event.get("run", manifest.run)
        if event["event"] == "started":
            told.pop(run, None)
        elif event["event"] == "progress":
            told[run] = event
    state: str = manifest.state
    done, errors = manifest.rows_done, dict(manifest.errors)
    end = None
    if manifest.state == "running":
        done, counted = FolderCounts(place, manifest).count()
        errors = dict(counted)
    if manifest.state == "running" and not live and not elsewhere:
        state = "died"
        end = earlier_end(events_of(place), MemoryWatch(here.root), manifest.run)
    now = [told[run] for run in live if run in told]
    return Status(
        output=name_of(place),
        state=state,
        rows=manifest.rows,
        done=done,
        failed=sum(errors.values()),
        errors=errors,
        started=manifest.started,
        ended=manifest.ended,
        updated=last.get("time"),
        eta_s=together_s(event.get("eta_s") for event in now),
        output_tokens_per_s=_sum(now, "output_tokens_per_s"),
        planned_output_tokens_per_s=_sum(now, "planned_output_tokens_per_s"),
        end=end.text if end else "",
        live=len(live) or int(elsewhere),
    )


def status_lines(status: Status) -> list[tuple[str, str]]:
    """The status as (label, text)."""
    share = units.percent(status.done / status.rows) if status.rows else ""
    rows = f"{units.count(status.done)} of {units.rows(status.rows)} done ({share})"
    if status.failed:
        rows += f", {units.count(status.failed)} failed"
    lines = [
        ("state", f"{status.state}{_processes(status.live)}"),
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


def _sum(told: Iterable[Mapping[str, Any]], name: str) -> float:
    return float(sum(event.get(name, 0.0) for event in told))


def _processes(live: int) -> str:
    return f", {live} processes at work" if live > 1 else ""


def _speed(status: Status) -> str:
    if not status.output_tokens_per_s:
        return ""
    speed = f"{units.rate(status.output_tokens_per_s)} out"
    planned = status.planned_output_tokens_per_s
    return f"{speed}, planned {units.tokens(planned)}" if planned else speed


def print_status(out: str, *, as_json: bool) -> None:
    """Prints the status of an output to standard output."""
    status = status_of(out)
    if as_json:
        print(orjson.dumps(status).decode())
        return
    for label, text in status_lines(status):
        print(f"{label:<10}{text}")
