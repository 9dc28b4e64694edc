"""tightrun as its users start it: the command line on a JSONL file, Parquet out, with no warm-up
but its own.

The figure is that of its `runs` table, from the first request to the last completion; reading,
tokenizing, decoding and writing are inside. Two lines that the command writes when that phase
begins and ends are timed here as well, by a clock it does not own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.rivals.told import answer, parser
from tightrun.core import RunRecord
from tightrun.io.reports import read_runs

COMMAND = (sys.executable, "-c", "from tightrun.cli.main import main; main()")


class RunFailedError(RuntimeError):
    """The command ended with another code than 0; the message is what it said."""


def main() -> None:
    told = parser()
    told.add_argument("--workdir", type=Path, required=True, help="for the job file and output")
    arguments = told.parse_args()
    out = arguments.workdir / "out"
    shutil.rmtree(out, ignore_errors=True)
    job = arguments.workdir / "job.yaml"
    job.write_text(
        json.dumps(job_file(arguments.model, arguments.prompts, out, arguments.max_tokens))
    )
    outside_s = run_command(job)
    record = read_runs(out)[-1]
    shutil.rmtree(out)
    packages = ("tightrun", "torch", "transformers")
    answer(
        *measured(record), packages, outside_seconds=outside_s, prompt_tokens=record.input_tokens
    )


def job_file(model: Path, prompts: Path, out: Path, max_tokens: int) -> dict[str, Any]:
    """The job as a mapping; JSON is YAML."""
    return {
        "model": str(model.resolve()),
        "input": {"path": str(prompts.resolve()), "prompt": "prompt", "id": "id"},
        "sampling": {"max_tokens": max_tokens, "temperature": 0, "ignore_eos": True},
        "output": {"path": f"{out.resolve()}/", "format": "parquet"},
    }


def measured(record: RunRecord) -> tuple[int, float, int]:
    """(output tokens, seconds, peak bytes) of the run. Raises RunFailedError if a row failed."""
    if record.failed:
        raise RunFailedError(f"{record.failed} of {record.rows} rows failed")
    return record.output_tokens, record.seconds, record.peak_cpu_bytes


def run_command(job: Path, log: Path | None = None) -> float:
    """Runs the job; seconds between the lines that begin and end its run phase. What it says is
    added to `log`."""
    command = [*COMMAND, "run", str(job), "--log-format", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        lines = [(time.perf_counter(), line) for line in child.stderr]
    if log is not None:
        with log.open("a") as kept:
            kept.writelines(line for _, line in lines)
    if child.returncode != 0:
        said = "".join(line for _, line in lines[-5:]).strip()
        raise RunFailedError(f"tightrun ended with exit code {child.returncode}: {said}")
    return run_phase_seconds(lines)


def run_phase_seconds(lines: Iterable[tuple[float, str]]) -> float:
    """Seconds of the run phase by when the lines of `--log-format json` came in."""
    times: dict[str, float] = {}
    for seconds, line in lines:
        found = json.loads(line) if line.startswith("{") else {}
        if found.get("phase") == "run" and found["event"] in ("phase", "phase_end"):
            times.setdefault(found["event"], seconds)
    return times["phase_end"] - times["phase"]


if __name__ == "__main__":
    main()
