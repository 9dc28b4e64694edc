"""The arithmetic of a case. Plain numbers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.report import ratios_to
from tightrun.core import StepRecord

OURS = "adaptive"


def decode_bound_share(steps: Sequence[StepRecord]) -> float | None:
    """Of the passes that only decode: the sum of their bounds over the sum of their times."""
    decodes = [step for step in steps if step.phase == "decode"]
    if not decodes:
        return None
    return sum(step.bound_s for step in decodes) / sum(step.elapsed_s for step in decodes)


def whole_job_tokens_per_s(
    pass_seconds: Sequence[float], batch_size: int, max_tokens: int
) -> float:
    """Tokens/s of a batch over all its passes, of which only the first few were run: the first is
    the prefill, the others go on as their median."""
    prefill_s, *decode_s = pass_seconds
    if max_tokens > 1 and not decode_s:
        raise ValueError("at least one decode pass is needed")
    later_s = (max_tokens - 1) * median(decode_s) if decode_s else 0.0
    return batch_size * max_tokens / (prefill_s + later_s)


def case(
    model: str,
    gpu_memory: int,
    workload: str,
    shown: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """A case of the result: our policies and rivals by name, each with `tokens_per_s` or an
    `error`."""
    speeds = {name: found.get("tokens_per_s") for name, found in shown.items()}
    theirs = {name: speed for name, speed in speeds.items() if name != OURS}
    return {
        "model": model,
        "gpu_memory": gpu_memory,
        "workload": workload,
        "policy": OURS,
        "tokens_per_s": speeds.get(OURS),
        "bound_share": shown.get(OURS, {}).get("bound_share"),
        "ratios": ratios_to(speeds.get(OURS), theirs),
        "errors": {name: found["error"] for name, found in shown.items() if "error" in found},
        "runs": shown,
    }


def left_out(names: Sequence[str], why: str) -> dict[str, dict[str, Any]]:
    """Entries for what was not run."""
    return {name: {"error": why} for name in names}
