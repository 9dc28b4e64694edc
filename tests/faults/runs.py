"""Small real jobs, and runs of them that things happen to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow.parquet as pq
import yaml

from tests.cli.jobs import write_rows
from tests.cli.tiny_llama import save_tiny_llama
from tests.faults.misfortune import Misfortune

ROOT = Path(__file__).parents[2]
ROWS = 30
SHARD_ROWS = 6
# A run that takes longer than this has hung.
LONGEST_S = 120.0
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"max_tokens": 60, "stop": ["zz"]},
    "sampled": {"max_tokens": 30, "temperature": 0.9, "n": 2, "ignore_eos": True},
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: its exit code, or minus the signal; what it said; when it was all over."""

    code: int
    said: str
    at_s: float

    @property
    def killed(self) -> bool:
        return self.code == -9


class HungError(AssertionError):
    """A run did not come to its end."""


@dataclass
class Runs:
    """Forks runs from one process. Not thread-safe; to be closed."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cache = {"XDG_CACHE_HOME": str(self.folder / "cache"), "NO_COLOR": "1"}
        self._environment = {**cache, **self.environment}
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            cwd=ROOT,
            env={**os.environ, **self._environment, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process that runs are forked from."""
        assert self._nursery.stdin is not None
        self._nursery.stdin.close()
        self._nursery.wait(30)

    def run(
        self,
        job: Path,
        misfortune: Misfortune | None = None,
        arguments: Sequence[str] = (),
        *,
        sync_s: float | None = 0.05,
        longest_s: float = LONGEST_S,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Runs a job to its end, whichever; raises HungError if it has none.

        `sync_s` is how often the journals are synced; None leaves that as it is.
        """
        order = {
            "told": str(self.folder),
            "arguments": [str(job), "--log-format", "plain", *arguments],
            "misfortune": misfortune,
            "environment": dict(environment or {}),
            "sync_s": sync_s,
        }
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(json.dumps(order) + "\n")
        self._nursery.stdin.flush()
        child = int(self._answer()["pid"])
        with _killed_after(child, longest_s) as hung:
            code = int(self._answer()["code"])
        at_s = time.time()
        said = (self.folder / "stderr").read_text()
        if hung:
            raise HungError(f"a run with {misfortune} did not end in {longest_s} s:\n{said}")
        return Ended(code, said, at_s)

    def _answer(self) -> dict[str, Any]:
        assert self._nursery.stdout is not None
        answer: dict[str, Any] = json.loads(self._nursery.stdout.readline())
        return answer


@contextmanager
def _killed_after(child: int, seconds: float) -> Iterator[list[int]]:
    """Kills the child when it takes longer; it is in the list then."""
    hung: list[int] = []

    def kill() -> None:
        hung.append(child)
        os.kill(child, signal.SIGKILL)

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        yield hung
    finally:
        timer.cancel()


def make_model(folder: Path) -> Path:
    """A model of random weights over bytes."""
    return save_tiny_llama(folder / "model")


def make_job(folder: Path, model: Path, out: str, way: str = "greedy", **sections: Any) -> Path:
    """The job file `folder/OUT.yaml` over `ROWS` prompts with its output in `folder/OUT`."""
    rows = [{"id": f"r{n}", "prompt": "abc " * (n % 9) + f"row {n}"} for n in range(ROWS)]
    job: dict[str, Any] = {
        "model": {"path": str(model), "dtype": "float32"},
        "input": {"path": str(write_rows(folder / "in.jsonl", rows))},
        "sampling": WAYS[way],
        "output": {"path": str(folder / out), "shard_rows": SHARD_ROWS},
        "limits": {"cpu_memory": "2GiB"},
        "policy": {"name": "adaptive", "batch_size": 6},
    }
    for name, section in sections.items():
        job[name] = {**job.get(name, {}), **section}
    path = folder / f"{Path(out).stem}.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def rows_of(out: Path) -> list[dict[str, Any]]:
    """All rows in the shards of an output, in the order of the files."""
    if out.is_file():
        return [json.loads(line) for line in out.read_text().splitlines()]
    rows: list[dict[str, Any]] = []
    for path in sorted((out / "data").glob("train-*")):
        if path.suffix == ".parquet":
            rows += pq.read_table(path).to_pylist()
        else:
            rows += [json.loads(line) for line in path.read_text().splitlines()]
    return rows


def check_whole(out: Path, expected: Sequence[Mapping[str, Any]]) -> None:
    """The output is what one run would have left: each row once, and no temporary file."""
    found = rows_of(out)
    numbers = [row["row_index"] for row in found]
    assert numbers == list(range(len(expected))), f"rows {numbers}"
    assert found == list(expected)
    assert leftovers(out) == []


def leftovers(out: Path) -> list[Path]:
    """Files that are there only while a run is."""
    folders = [out, out.with_name(f"{out.stem}.tightrun")]
    found = [path for folder in folders for path in folder.rglob(".*") if path.is_file()]
    journals = [path for folder in folders for path in folder.rglob("journal/*")]
    return found + journals
