"""One setting: its plan's prediction, made before anything runs, and the job as it then ran.

A program of its own, so that no setting finds the memory that another has left.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks.engine_runs import OpenJob, job, write_rows
from benchmarks.jobs import SPECIAL_TOKENS
from benchmarks.plan_accuracy.figures import RESOURCE, error, measured_binding
from benchmarks.plan_accuracy.models import ensure
from benchmarks.plan_accuracy.settings import QUICK_SECONDS, SECONDS, Setting, draw
from benchmarks.report import say
from tightrun.cli.known import known_for
from tightrun.cli.plan import plan_of
from tightrun.cli.planning import Planned
from tightrun.core import StepRecord
from tightrun.io.job import load_job
from tightrun.policies.compute_times import ComputeTimes
from tightrun.policies.known_json import known_to_json
from tightrun.policies.plan import DoesNotFitError, Predicted
from tightrun.runtime.disturbance import Disturbance

LANES = {"compute": "compute_s", "h2d": "h2d_s", "d2h": "d2h_s", "disk": "disk_s"}


def main() -> None:
    told = argparse.ArgumentParser(
        prog="python -m benchmarks.plan_accuracy.trial", description=__doc__
    )
    told.add_argument("--setting", type=int, required=True, help="which of the seed's settings")
    told.add_argument("--seed", type=int, default=0)
    told.add_argument("--runs", type=int, default=1, help="how often it is run (default 1)")
    told.add_argument("--workdir", type=Path, required=True)
    told.add_argument("--quick", action="store_true", help="jobs of a moment")
    arguments = told.parse_args()
    seconds = QUICK_SECONDS if arguments.quick else SECONDS
    setting = draw(arguments.seed, seconds)[arguments.setting]
    print(json.dumps(try_setting(setting, arguments.seed, arguments.runs, arguments.workdir)))


def try_setting(setting: Setting, seed: int, runs: int, workdir: Path) -> dict[str, Any]:
    """What the plan predicts, and what each run came to."""
    described = describe_job(setting, seed, workdir)
    planned = plan(described)
    predicted = predicted_of(planned)
    with open_planned(described, planned) as opened:
        runs_found = [measure(opened, setting) for _ in range(runs)]
        lines = opened.describe()
    speed = median(run["output_tokens_per_s"] for run in runs_found)
    off = error(predicted.output_tokens_per_s, speed)
    return {
        "told": describe(setting),
        "said": f"{predicted.output_tokens_per_s:,.1f} tokens/s planned, {speed:,.1f} measured "
        f"({off:+.1%})",
        "predicted_tokens_per_s": predicted.output_tokens_per_s,
        "measured_tokens_per_s": speed,
        "error": off,
        "others_share": max(run["others_share"] for run in runs_found),
        "binding": {
            "planned": RESOURCE[predicted.binding],
            "measured": runs_found[0]["binding"],
        },
        "predicted": asdict(predicted),
        "runs": runs_found,
        "plan": lines,
        "rates": known_to_json(planned.known)["rates"],
    }


def describe_job(setting: Setting, seed: int, workdir: Path) -> dict[str, Any]:
    """The setting's job; its model and its rows are made."""
    model = ensure(setting.shape, seed, workdir)
    draw_tokens = np.random.default_rng(seed)
    words = setting.shape.vocab - len(SPECIAL_TOKENS)
    prompts = [draw_tokens.integers(0, words, prompt).tolist() for prompt, _ in setting.lengths]
    outputs = [output for _, output in setting.lengths]
    rows = write_rows(workdir / "plan-accuracy.jsonl", prompts, None if setting.alike else outputs)
    return job(
        model,
        rows,
        workdir / "out",
        max_tokens=max(outputs),
        context=setting.context,
        hardware=setting.hardware,
        policy={"name": setting.policy},
        limits={"gpu_memory": "100%", "cpu_memory": "100%"},
    )


def plan(described: Mapping[str, Any]) -> Planned:
    """What `tightrun plan` makes of the job, with what it has to know found out anew. Raises
    DoesNotFitError."""
    planned = plan_of(load_job(described), None, partial(known_for, refresh=True), say)
    if planned.job_plan is None:
        raise DoesNotFitError(planned.refusal)
    return planned


def predicted_of(planned: Planned) -> Predicted:
    """What the plan says that the job will come to."""
    assert planned.job_plan is not None
    assert planned.job_plan.predicted is not None
    return planned.job_plan.predicted


def open_planned(described: Mapping[str, Any], planned: Planned) -> OpenJob:
    """The engine loaded for the job, with this plan and no other."""
    assert planned.job_plan is not None
    sizes = planned.job_plan.plan
    return OpenJob(described, lambda _: sizes, planned)


def measure(opened: OpenJob, setting: Setting, most_s: float | None = None) -> dict[str, Any]:
    """One run of the whole job: output tokens/s by the clock, and what the lanes did. A run that is
    ended after `most_s` seconds counts as if it had been done by then."""
    others = Disturbance()
    began = time.perf_counter()
    steps = opened.run(opened.rows, most_s=most_s)
    seconds = time.perf_counter() - began
    return {
        "output_tokens_per_s": setting.output_tokens / seconds,
        "seconds": seconds,
        "others_share": others.share(),
        "binding": measured_binding(steps, reading_share(steps, opened.computing)),
        "phases": phases(steps),
    }


def reading_share(steps: Sequence[StepRecord], computing: ComputeTimes) -> float:
    """The share of computing that waits for device memory: contexts and weights that the passes
    have read, at the probed rates, over the seconds that were measured."""
    reading_s = 0.0
    for step in steps:
        rows = (step.prefill_tokens + step.decode_tokens) / step.batches
        reading_s += step.batches * computing.reading_s(rows, step.context_tokens / step.batches)
    return min(1.0, reading_s / sum(step.compute_s for step in steps))


def phases(steps: Sequence[StepRecord]) -> dict[str, dict[str, float]]:
    """Sums over the passes of each phase: seconds by the clock and by lane, tokens, passes."""
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for step in steps:
        mine = sums[step.phase]
        mine["passes"] += 1
        mine["batches"] += step.batches
        mine["rows"] += step.prefill_tokens + step.decode_tokens
        mine["sequences"] += step.sequences
        mine["context_tokens"] += step.context_tokens
        mine["elapsed_s"] += step.elapsed_s
        mine["predicted_s"] += step.predicted_s
        for lane, field in LANES.items():
            mine[f"{lane}_s"] += getattr(step, field)
    return {phase: dict(found) for phase, found in sums.items()}


def describe(setting: Setting) -> dict[str, Any]:
    """The setting in numbers, beside its figures."""
    shape, prompts = setting.shape, [prompt for prompt, _ in setting.lengths]
    return {
        "name": setting.name,
        "aim": setting.aim,
        "policy": setting.policy,
        "hardware": setting.hardware,
        "rows": len(setting.lengths),
        "prompt_tokens": fmean(prompts),
        "output_tokens": setting.output_tokens / len(prompts),
        "alike": setting.alike,
        "weight_bytes": shape.weight_bytes,
        "kv_bytes_per_token": shape.kv_bytes_per_token,
        "flops_per_token": shape.flops_per_token,
    }


if __name__ == "__main__":
    main()
