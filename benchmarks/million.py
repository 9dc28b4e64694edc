"""A job of a million rows through an engine that answers at once: does memory stay flat, does a row
cost as much at the end as at the beginning, and how soon does a killed run go on?

The first run is killed after nine tenths of the rows; the second one ends the job. Everything but
the model is what a user's run does: scan, journal, shards, report, manifest.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.machine import hardware, hardware_name, versions
from benchmarks.report import number, publish, say, table
from tightrun.cli.log_format import LogFormat
from tightrun.cli.run import run_job
from tightrun.cli.views import open_view
from tightrun.core import Completion, Request, Sample, StepRecord, Written
from tightrun.policies.measured import Comparison
from tightrun.policies.output_shares import Learnt

ROWS, QUICK_ROWS = 1_000_000, 20_000
KILLED_AT = 0.9
SAMPLES = 40
MIB = 2**20
PACKAGES = ("tightrun", "pyarrow")


class Replay:
    """An engine that answers each row with its prompt in upper case, and notes what that cost."""

    def __init__(self, begin: float, every: int, kill_after: int, told: Path) -> None:
        self._begin, self._every, self._kill_after = begin, every, kill_after
        self._told = told
        self._finished = 0
        self._process = psutil.Process()

    def run(
        self,
        items: Iterable[Request],
        finish: Callable[[Completion], None],
        _on_step: Callable[[StepRecord], None],
        stop: threading.Event,
        *_others: object,
    ) -> None:
        with self._told.open("a") as told:
            for item in items:
                if stop.is_set():
                    return
                if self._finished % self._every == 0:
                    print(json.dumps(self._seen()), file=told, flush=True)
                finish(self._answer(item))
                self._finished += 1
                if self._finished == self._kill_after:
                    os.kill(os.getpid(), signal.SIGKILL)
            print(json.dumps(self._seen()), file=told, flush=True)

    def _seen(self) -> dict[str, float]:
        return {
            "finished": self._finished,
            "seconds": time.perf_counter() - self._begin,
            "rss": self._process.memory_info().rss,
        }

    def _answer(self, item: Request) -> Completion:
        sample = Sample(str(item.prompt).upper(), "stop", completion_tokens=1)
        seed, attempt = item.sampling.seed, item.attempt
        return Completion(item.row_index, item.id, (sample,), 2, seed, attempt=attempt)

    def unfinished(self, _known: Callable[[int, int, int], int]) -> list[Written]:
        return []

    def remember(self, learnt: Learnt) -> None:
        """Nothing is foreseen here."""

    def snapshot(self) -> SimpleNamespace:
        names = (
            *("running", "waiting", "prompt_tokens", "output_tokens"),
            *("predicted_remaining_tokens", "gpu_bytes", "gpu_budget", "cpu_bytes", "cpu_budget"),
            *("planned_output_tokens_per_s", "mean_output_tokens", "planned_seconds"),
        )
        return SimpleNamespace(**dict.fromkeys(names, 0))

    def describe(self) -> list[str]:
        return ["no model: each row is answered at once"]

    def job_plan(self) -> None:
        return None

    def summary(self) -> SimpleNamespace:
        names = (
            *("flops_per_s", "bound_share", "peak_gpu_bytes", "peak_cpu_bytes"),
            *("h2d_bytes_per_s", "d2h_bytes_per_s", "disk_bytes_per_s", "idle_s"),
            "recompute_ratio",
        )
        return SimpleNamespace(
            **dict.fromkeys(names, 0),
            binding="compute",
            recompute_form="",
            comparison=Comparison(),
            learnt=Learnt(),
        )

    def close(self) -> None:
        """Nothing is held."""


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes the result; 1 if rows are not there exactly once."""
    told = _parser().parse_args(arguments)
    if told.child is not None:
        return _child(told)
    rows = told.rows or (QUICK_ROWS if told.quick else ROWS)
    machine = hardware()
    with tempfile.TemporaryDirectory(dir=told.workdir) as folder:
        found = measure(rows, Path(folder))
    result = {
        "benchmark": "million",
        **found,
        "hardware": machine,
        "versions": versions(PACKAGES),
    }
    print(shown(found), end="\n\n", flush=True)
    publish(result, "million-quick" if rows < ROWS else "million", hardware_name(machine))
    return int(not found["each_row_once"])


def measure(rows: int, folder: Path) -> dict[str, Any]:
    """Both runs, and whether the data set has each row once, with its own text."""
    write_input(folder / "in.jsonl", rows)
    killed = int(KILLED_AT * rows)
    first = _run(folder, rows, killed)
    say(f"killed after {killed:,} rows")
    second = _run(folder, rows, 0)
    every = max(1, rows // SAMPLES)
    return {
        "rows": rows,
        "seconds_per_100k": per_100k(first),
        "rss_mib": [round(sample["rss"] / MIB, 1) for sample in first],
        "rss_growth": growth(first),
        "resume_s": second[0]["seconds"],
        "redone_rows": int(second[-1]["finished"]) - (rows - killed),
        "each_row_once": each_once(folder / "out", rows),
        "sampled_every": every,
    }


def write_input(path: Path, rows: int) -> None:
    """Rows with an id and a prompt that differs from row to row."""
    with path.open("w") as file:
        for n in range(rows):
            file.write(f'{{"id": "r{n}", "prompt": "say {n}"}}\n')


def per_100k(samples: list[dict[str, float]]) -> list[float]:
    """Seconds for 100,000 rows, over each tenth of the run."""
    tenths = samples[:: max(1, len(samples) // 9)]
    return [
        round(1e5 * (b["seconds"] - a["seconds"]) / (b["finished"] - a["finished"]), 2)
        for a, b in pairwise(tenths)
        if b["finished"] > a["finished"]
    ]


def growth(samples: list[dict[str, float]]) -> float:
    """The largest resident set over the one after a fifth of the rows."""
    settled = [sample["rss"] for sample in samples[len(samples) // 5 :]]
    return max(settled) / settled[0]


def each_once(out: Path, rows: int) -> bool:
    """Whether the data set has every id once, with the text that belongs to it."""
    found = pq.read_table(out / "data", columns=["id", "text"])
    if found.num_rows != rows or pc.count_distinct(found["id"]).as_py() != rows:
        return False
    numbers = pc.utf8_slice_codeunits(found["id"], 1)
    expected = pc.binary_join_element_wise("SAY", numbers, " ")
    return bool(pc.all(pc.equal(found["text"], expected)).as_py())


def shown(found: dict[str, Any]) -> str:
    """The figures for people."""
    speed, rss = found["seconds_per_100k"], found["rss_mib"]
    return table(
        ["", "first", "last"],
        [
            ["seconds per 100,000 rows", number(speed[0], 2), number(speed[-1], 2)],
            ["resident set, MiB", number(rss[len(rss) // 5]), number(rss[-1])],
            ["seconds until a killed run goes on", number(found["resume_s"], 2), ""],
        ],
    )


def _run(folder: Path, rows: int, kill_after: int) -> list[dict[str, float]]:
    """The samples of one run in a process of its own. Raises RuntimeError if it ends otherwise
    than it should."""
    told = folder / f"told-{kill_after}.jsonl"
    told.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.million", "--workdir", str(folder)]
    command += ["--rows", str(rows), "--child", str(kill_after)]
    ended = subprocess.run(command, check=False).returncode
    if ended != (-signal.SIGKILL if kill_after else 0):
        raise RuntimeError(f"the run ended with exit code {ended}")
    return list(_samples(told))


def _samples(told: Path) -> Iterator[dict[str, float]]:
    for line in told.read_text().splitlines():
        yield json.loads(line)


def _child(told: argparse.Namespace) -> int:
    folder: Path = told.workdir
    (folder / "model").mkdir(exist_ok=True)
    job = {
        "model": str(folder / "model"),
        "input": {"path": str(folder / "in.jsonl")},
        "output": {"path": str(folder / "out")},
    }
    begin = time.perf_counter()
    engine = Replay(
        begin, max(1, told.rows // SAMPLES), told.child, folder / f"told-{told.child}.jsonl"
    )
    with (folder / "log").open("a") as log:
        view = open_view(LogFormat.PLAIN, quiet=False, environment={}, progress=log, closing=log)
        summary = run_job(job, view=view, engine_factory=lambda *_: engine)
    return int(summary.exit_code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million", description=__doc__)
    parser.add_argument("--rows", type=int, default=None, help=f"rows (default {ROWS:,})")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS:,} rows")
    parser.add_argument("--workdir", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--child", type=int, default=None, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
