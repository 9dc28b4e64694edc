"""Weights from a disk: a model of four gigabytes in one of memory, against accelerate's offload.

tightrun runs through its command line, its memory limit one gibibyte above what the imports hold.
The bound of a pass is the larger of its compute at the rate of the best products of so many rows,
and the bytes it read from the disk at the rate of direct reads, both measured around the runs; a
run that read faster than the probe raises its own bound.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.engine_runs import job, write_rows
from benchmarks.jobs import SPECIAL_TOKENS
from benchmarks.offload.figures import decodes, median_seconds
from benchmarks.offload.models import DISK, DISK_QUICK, llama
from benchmarks.offload.probes import disk_rate
from benchmarks.random_model import checkpoint_bytes
from benchmarks.report import say
from benchmarks.rivals.tightrun_run import RunFailedError, measured, run_command
from benchmarks.turns import RivalError, run_program
from tightrun.core import StepRecord
from tightrun.io.reports import read_runs, read_steps

GIB = 2**30
ROOM, QUICK_ROOM = GIB, 3 * GIB // 8  # above what the imports hold
SEQUENCES, QUICK_SEQUENCES = (64, 256), (16,)
RIVAL_BATCHES = (16, 64, 256)
PROMPT_TOKENS, MAX_TOKENS = 4, 8
LARGEST_BATCH = 256
WARM_PASSES = 1
IMPORTS = (
    "import psutil, tightrun.cli.main, tightrun.runtime.engine, tightrun.cli.load_engine; "
    "import transformers.models.llama.modeling_llama; "
    "print(psutil.Process().memory_info().rss)"
)


def main() -> None:
    told = argparse.ArgumentParser(prog="python -m benchmarks.offload.disk", description=__doc__)
    told.add_argument("--seed", type=int, default=0)
    told.add_argument("--workdir", type=Path, required=True)
    told.add_argument("--peers", default="accelerate")
    told.add_argument("--quick", action="store_true", help="a model of 0.7 gigabytes")
    print(json.dumps(Disk(told.parse_args()).measure()))


class Disk:
    """The measurement: ours for each number of sequences, then accelerate's at its best."""

    def __init__(self, told: argparse.Namespace) -> None:
        self._size = DISK_QUICK if told.quick else DISK
        self._room = QUICK_ROOM if told.quick else ROOM
        self._sequences = QUICK_SEQUENCES if told.quick else SEQUENCES
        self._rival_batches = QUICK_SEQUENCES if told.quick else RIVAL_BATCHES
        self._with_rival = "accelerate" in told.peers.split(",")
        self._workdir: Path = told.workdir
        self._log = told.workdir / "disk.log"
        self._model = llama(self._size, told.seed, told.workdir)
        self._files = sorted(self._model.glob("*.safetensors"))
        draw = np.random.default_rng(told.seed)
        shape = (max(*self._sequences, *self._rival_batches), PROMPT_TOKENS)
        self._prompts = draw.integers(0, self._size.vocab - len(SPECIAL_TOKENS), shape).tolist()

    def measure(self) -> dict[str, Any]:
        """Everything, with the disk's rate before and after our runs."""
        limit = resident_after_imports() + self._room
        rates = [disk_rate(self._files)]
        products = self._product_rates()
        ours = {count: self._ours(count, limit) for count in self._sequences}
        rates.append(disk_rate(self._files))
        disk = max(*rates, *map(reached_rate, ours.values()))
        cases = {
            str(count): {**run, **shares(run, disk, products[count])} for count, run in ours.items()
        }
        speed = cases[str(max(self._sequences))]["tokens_per_s"]
        cold = self._accelerate(drop=True)
        warm = self._accelerate(drop=False)
        return {
            "accelerate": ratio(speed, cold),
            "accelerate_cached": ratio(speed, warm),
            "bound_share": min(case["bound_share"] for case in cases.values()),
            "limit_held": all(case["peak_bytes"] <= limit for case in cases.values()),
            "limit_bytes": limit,
            "model_bytes": checkpoint_bytes(self._model),
            "disk_bytes_per_s": rates,
            "product_flops_per_s": products,
            "cases": cases,
            "rivals": {"accelerate": cold, "accelerate_cached": warm},
            "job": {"prompt_tokens": PROMPT_TOKENS, "max_tokens": MAX_TOKENS},
        }

    def _ours(self, sequences: int, limit: int) -> dict[str, Any]:
        """One run through the command line: its decode passes, its tokens/s, its peak."""
        rows = write_rows(self._workdir / f"disk-{sequences}.jsonl", self._prompts[:sequences])
        out = self._workdir / "disk-out"
        shutil.rmtree(out, ignore_errors=True)
        file = self._workdir / "disk.yaml"
        batch = min(sequences, LARGEST_BATCH)
        described = job(
            self._model,
            rows,
            out,
            max_tokens=MAX_TOKENS,
            context=PROMPT_TOKENS + MAX_TOKENS,
            hardware="cpu",
            policy={"name": "adaptive", "batch_size": batch, "batches": -(-sequences // batch)},
            limits={"cpu_memory": f"{limit}B"},
        )
        file.write_text(json.dumps(described))
        run_command(file)
        record = read_runs(out)[-1]
        tokens, seconds, peak = measured(record)
        all_steps = [StepRecord(**row) for row in read_steps(out).to_pylist()]
        steps = decodes(all_steps, sequences)[WARM_PASSES:]
        if not steps:
            raise RunFailedError(
                f"no pass decoded all {sequences} sequences together, but "
                f"{sorted({step.sequences for step in all_steps})}; its report is in {out}"
            )
        shutil.rmtree(out)
        say(f"{sequences} sequences: {median_seconds(steps):.2f} s a pass, "
            f"{peak / GIB:.2f} of {limit / GIB:.2f} GiB")  # fmt: skip
        return {
            "sequences": sequences,
            "tokens_per_s": tokens / seconds,
            "decode_tokens_per_s": sequences / median_seconds(steps),
            "pass_s": [step.elapsed_s for step in steps],
            "disk_bytes": median(step.disk_bytes for step in steps),
            "disk_s": [step.disk_s for step in steps],
            "compute_s": [step.compute_s for step in steps],
            "engine_bound_s": [step.bound_s for step in steps],
            "dense_flops": 2.0
            * sequences
            * (self._size.dense_parameters + self._size.head_parameters),
            "peak_bytes": peak,
            "passes": len(all_steps),
        }

    def _product_rates(self) -> dict[int, float]:
        """FLOP/s of a layer's products together, each at its best, by rows."""
        shapes = self._size.products.values()
        names = sorted({f"{inputs}x{outputs}" for inputs, outputs in shapes})
        rows = [str(count) for count in self._sequences]
        command = [sys.executable, "-m", "benchmarks.ceiling", *names, "--rows", *rows]
        points = run_program(command, self._log)["points"]
        return {
            count: layer_rate(list(shapes), [p for p in points if p["rows"] == count])
            for count in self._sequences
        }

    def _accelerate(self, drop: bool) -> dict[str, Any]:
        """accelerate at its best batch size: tokens/s of one batch, or why there is none."""
        if not self._with_rival:
            return {"tokens_per_s": None, "error": "left out by --peers"}
        prompts = self._workdir / "disk-prompts.json"
        prompts.write_text(json.dumps(self._prompts))
        found: dict[str, Any] = {}
        for batch in self._rival_batches:
            command = [
                *(sys.executable, "-m", "benchmarks.rivals.accelerate_offload"),
                *("--model", str(self._model), "--prompts", str(prompts)),
                *("--max-tokens", str(MAX_TOKENS), "--batch-size", str(batch), "--batches", "1"),
                *("--weights", "disk", "--offload-folder", str(self._workdir / "disk-offload")),
                *(("--drop-cache",) if drop else ()),
            ]
            try:
                found[str(batch)] = run_program(command, self._log)
            except RivalError as error:
                found[str(batch)] = {"error": str(error)}
                continue
            shown = found[str(batch)]
            shown["tokens_per_s"] = shown["tokens"] / shown["seconds"]
            say(f"accelerate, batch {batch}, {'dropped' if drop else 'cached'}: "
                f"{shown['tokens_per_s']:.1f} tokens/s")  # fmt: skip
        return best_of(found)


def reached_rate(run: Mapping[str, Any]) -> float:
    """Bytes/s of the disk in the run's fastest pass; nothing where nothing was read."""
    seconds = min(run["disk_s"])
    return float(run["disk_bytes"] / seconds) if seconds else 0.0


def shares(run: Mapping[str, Any], disk: float, flops_per_s: float) -> dict[str, Any]:
    """The bounds of a decode pass and the share of the larger one that was reached."""
    bounds = {"disk_s": run["disk_bytes"] / disk, "compute_s": run["dense_flops"] / flops_per_s}
    return {"bounds": bounds, "bound_share": max(bounds.values()) / median(run["pass_s"])}


def layer_rate(shapes: Sequence[tuple[int, int]], points: Sequence[Mapping[str, Any]]) -> float:
    """FLOP/s of all products of a layer one after another, each as fast as it was seen."""
    best: dict[str, float] = {}
    for point in points:
        best[point["shape"]] = max(best.get(point["shape"], 0.0), point["flops_per_s"])
    work = [float(inputs * outputs) for inputs, outputs in shapes]
    taken = [w / best[f"{i}x{o}"] for w, (i, o) in zip(work, shapes, strict=True)]
    return sum(work) / sum(taken)


def best_of(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The fastest batch size; null with the errors if none ran."""
    ran = {batch: shown for batch, shown in found.items() if "tokens_per_s" in shown}
    if not ran:
        errors = "; ".join(f"batch {batch}: {shown['error']}" for batch, shown in found.items())
        return {"tokens_per_s": None, "error": errors}
    best = max(ran, key=lambda batch: ran[batch]["tokens_per_s"])
    return {"tokens_per_s": ran[best]["tokens_per_s"], "batch": int(best), "batches": dict(found)}


def ratio(ours: float, theirs: Mapping[str, Any]) -> float | None:
    """Ours over theirs; None where they have no figure."""
    return None if theirs["tokens_per_s"] is None else ours / theirs["tokens_per_s"]


def resident_after_imports() -> int:
    """Bytes that a process holds once tightrun and its libraries are imported."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


if __name__ == "__main__":
    main()
