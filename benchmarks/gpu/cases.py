"""One model, one size of device memory, one workload: our policies through the command line, then
the rivals, each in a process of its own."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from benchmarks.engine_runs import job
from benchmarks.gpu.figures import decode_bound_share, whole_job_tokens_per_s
from benchmarks.gpu.models import GIB, Shape
from benchmarks.jobs import SPECIAL_TOKENS, text_of
from benchmarks.report import say
from benchmarks.rivals.tightrun_run import RunFailedError, measured, run_command
from benchmarks.turns import RivalError, run_program
from benchmarks.workloads import FIXED, Workload
from tightrun.core import StepRecord
from tightrun.io.reports import read_runs, read_steps

ACCELERATE_BATCHES = (16, 48)
ACCELERATE_TOKENS = 4
FLEXLLMGEN_BATCHES = (48, 1)
GPU_PERCENT = {16 * GIB: 20.0, 24 * GIB: 30.0}  # of OPT-30B's weights, as published for 16 GB


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured, and where its files are."""

    name: str
    shape: Shape
    config: PretrainedConfig
    model: Path
    gpu_memory: int
    workload: Workload
    rows: int
    seed: int
    workdir: Path

    @property
    def log(self) -> Path:
        return self.workdir / "gpu.log"

    def prompts(self) -> list[tuple[list[int], int]]:
        """(token ids, tokens to generate) of every row."""
        draw = np.random.default_rng(self.seed)
        words = self.config.vocab_size - len(SPECIAL_TOKENS)
        return [
            (draw.integers(0, words, prompt).tolist(), output)
            for prompt, output in self.workload.rows(self.rows, self.seed)
        ]

    def write_rows(self) -> Path:
        """The rows as JSONL; each says how many tokens it wants."""
        path = self.workdir / f"{self.name}-{self.workload.name}.jsonl"
        with path.open("w") as lines:
            for number, (prompt, output) in enumerate(self.prompts()):
                row = {"id": f"row-{number}", "prompt": text_of(prompt)}
                if not self.workload.alike:
                    row["sampling_params"] = json.dumps({"max_tokens": output})
                lines.write(json.dumps(row) + "\n")
        return path


def run_policy(case: Case, policy: str) -> dict[str, Any]:
    """The whole job under a policy: tokens/s and the bound's share in decode, or the error."""
    out = case.workdir / "gpu-out"
    shutil.rmtree(out, ignore_errors=True)
    longest = min(case.workload.longest, case.config.max_position_embeddings)
    described = job(
        case.model,
        case.write_rows(),
        out,
        max_tokens=case.workload.output_tokens,
        context=longest,
        hardware="cuda:0",
        policy={"name": policy},
        limits={"gpu_memory": f"{case.gpu_memory}B"},
    )
    file = case.workdir / "gpu.yaml"
    file.write_text(json.dumps(described))
    try:
        run_command(file, case.log)
        record = read_runs(out)[-1]
        tokens, seconds, peak_host = measured(record)
    except RunFailedError as error:
        return {"error": str(error)}
    steps = [StepRecord(**row) for row in read_steps(out).to_pylist()]
    shutil.rmtree(out)
    say(f"{case.name}, {case.gpu_memory / GIB:.0f} GiB, {policy}: {tokens / seconds:,.1f} tokens/s")
    return {
        "tokens_per_s": tokens / seconds,
        "bound_share": decode_bound_share(steps),
        "seconds": seconds,
        "passes": len(steps),
        "h2d_bytes_per_s": record.h2d_bytes_per_s,
        "planned_output_tokens_per_s": record.planned_output_tokens_per_s,
        "peak_gpu_bytes": record.peak_gpu_bytes,
        "peak_host_bytes": peak_host,
    }


def run_accelerate(case: Case) -> dict[str, Any]:
    """`cpu_offload` at its best batch size, its passes going on as the first few did."""
    if not case.workload.alike:
        return {"error": "generate pads rows of mixed lengths; compared on rows of one length"}
    prompts = case.workdir / "gpu-prompts.json"
    prompts.write_text(json.dumps([prompt for prompt, _ in case.prompts()]))
    shown: dict[str, Any] = {}
    for batch in ACCELERATE_BATCHES:
        command = [
            *(sys.executable, "-m", "benchmarks.rivals.accelerate_offload"),
            *("--model", str(case.model), "--prompts", str(prompts), "--weights", "cpu"),
            *("--device", "cuda:0", "--gpu-memory", str(case.gpu_memory)),
            *("--batch-size", str(batch), "--batches", "1"),
            *("--max-tokens", str(ACCELERATE_TOKENS)),
        ]
        try:
            answer = run_program(command, case.log)
        except RivalError as error:
            shown[str(batch)] = {"error": str(error)}
            continue
        tokens = case.workload.output_tokens
        speed = whole_job_tokens_per_s(answer["pass_seconds"], batch, tokens)
        shown[str(batch)] = {**answer, "tokens_per_s": speed}
    return best_batch(shown)


def best_batch(shown: dict[str, Any]) -> dict[str, Any]:
    """The fastest of the batch sizes that ran, or all their errors."""
    ran = {batch: found for batch, found in shown.items() if "tokens_per_s" in found}
    if not ran:
        errors = (f"batch {batch}: {found['error']}" for batch, found in shown.items())
        return {"error": "; ".join(errors)}
    best = max(ran, key=lambda batch: float(ran[batch]["tokens_per_s"]))
    return {"tokens_per_s": ran[best]["tokens_per_s"], "batch": int(best), "batches": shown}


def run_flexllmgen(case: Case, python: str) -> dict[str, Any]:
    """FlexLLMGen on the model of its own that has this shape, with attention here and there."""
    if case.shape.flexllmgen is None:
        return {"error": "it knows OPT models only"}
    if case.workload != FIXED:
        return {"error": "it takes rows of one length only"}
    batch, batches = FLEXLLMGEN_BATCHES
    shown: dict[str, Any] = {}
    for setting, flags in {"GPU attention": (), "CPU attention": ("--cpu-attention",)}.items():
        command = [
            *(python, "-m", "benchmarks.rivals.flexllmgen_run", "--model", case.shape.flexllmgen),
            *("--prompt-tokens", str(case.workload.prompt_tokens)),
            *("--max-tokens", str(case.workload.output_tokens)),
            *("--batch-size", str(batch), "--batches", str(batches)),
            *("--gpu-percent", str(GPU_PERCENT.get(case.gpu_memory, 20.0))),
            *("--offload-folder", str(case.workdir / "flexllmgen-offload"), *flags),
        ]
        try:
            answer = run_program(command, case.log)
        except RivalError as error:
            return {"error": str(error)}
        shown[setting] = {**answer, "tokens_per_s": answer["tokens"] / answer["seconds"]}
    best = max(shown, key=lambda setting: float(shown[setting]["tokens_per_s"]))
    return {"tokens_per_s": shown[best]["tokens_per_s"], "setting": best, "settings": shown}
