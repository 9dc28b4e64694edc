"""Small jobs on disk, and a view that only listens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tightrun.cli.progress import Progress
from tightrun.cli.summary import Summary
from tightrun.policies.planner import JobPlan


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompts(count: int) -> list[dict[str, str]]:
    """Rows with an id and a prompt that differs from row to row."""
    return [{"id": f"r{number}", "prompt": f"say {number}"} for number in range(count)]


def job_of(folder: Path, rows: Iterable[Mapping[str, Any]], **sections: Any) -> dict[str, Any]:
    """A job over `rows` with output in `folder/out`; sections override or add."""
    path = write_rows(folder / "in.jsonl", rows)
    (folder / "model").mkdir(exist_ok=True)
    return {
        "model": str(folder / "model"),
        "input": {"path": str(path)},
        "output": {"path": str(folder / "out")},
        **sections,
    }


def texts(out: Path) -> list[str | None]:
    """The column `text` of a Parquet output, in the order of its rows."""
    return list(read(out).column("text").to_pylist())


def read(out: Path) -> pa.Table:
    """All rows of a Parquet output."""
    return pq.read_table(out / "data").sort_by("row_index")


def events(out: Path) -> list[dict[str, Any]]:
    """The lines of events.jsonl."""
    lines = (out / "_tightrun" / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


class Listener:
    """A view that keeps what it is told."""

    interval_s = 0.01

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.broke_off: list[str] = []
        self.details: list[str] = []
        self.facts: list[str] = []
        self.plans: list[JobPlan] = []
        self.notes: list[str] = []
        self.prompts: list[tuple[str, str]] = []
        self.summary: Summary | None = None

    def title(self, text: str) -> None:
        pass

    def phase(self, name: str, detail: str = "", *, broke_off: bool = False) -> None:
        if broke_off:
            self.broke_off += self.phases[-1:]
        self.phases.append(name)
        self.details.append(detail)

    def plan(self, job_plan: JobPlan) -> None:
        self.plans.append(job_plan)

    def detail(self, text: str) -> None:
        self.details.append(text)

    def tick(self, progress: Progress | None) -> None:
        pass

    def fact(self, text: str) -> None:
        self.facts.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def error(self, text: str) -> None:
        pass

    def prompt(self, place: str, text: str) -> None:
        self.prompts.append((place, text))

    def close(self, *, good: bool) -> None:
        if not good:
            self.broke_off += self.phases[-1:]

    def closing(self, summary: Summary) -> None:
        self.summary = summary

    def abort(self) -> None:
        pass
