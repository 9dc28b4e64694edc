"""What recomputing could gain by probed times, and what it gained. Plain numbers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.offload.figures import (
    Split,
    best_split,
    correlation_of,
    median_seconds,
    plan_error,
    seconds_at,
)
from tightrun.core import StepRecord

QUARTER = 4
LINK_ROWS = 512
SAVED = {"tokens": 1.0, "activations": 0.5}
NONE, AUTO = "0", "auto"


@dataclass(frozen=True, slots=True)
class BlockShape:
    """Sequences of a batch, batches of a pass, layers, and KV bytes of a token in one of them."""

    batch: int
    batches: int
    layers: int
    kv_bytes: int


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """Probed seconds of one batch in one layer: replay and projection as (rows, seconds) in
    ascending order, attention of its decode by context; and of the head."""

    replay: tuple[tuple[int, float], ...]
    project: tuple[tuple[int, float], ...]
    attend: Mapping[int, float]
    head_s: float

    def link(self, shape: BlockShape) -> float:
        """Bytes/s at which a token's KV takes a quarter of its replay among 512 others."""
        fetch_s = seconds_at(self.replay, LINK_ROWS) / LINK_ROWS / QUARTER
        return shape.kv_bytes / fetch_s

    def ideal(self, context: int, form: str, shape: BlockShape) -> tuple[float, Split]:
        """(seconds of a pass with ratio 0, the best split of it): compute and link overlap
        wholly, and what is decoded goes through a layer together with what is replayed."""
        tokens = shape.batch * context
        stages = shape.batches * shape.layers
        fetch_s = stages * tokens * shape.kv_bytes / self.link(shape)

        def compute_s(share: float) -> float:
            replayed = share * tokens if form == "tokens" else 0.0
            layer_s = self.attend[context] + seconds_at(self.replay, shape.batch + replayed)
            if form == "activations" and share:
                layer_s += seconds_at(self.project, share * tokens)
            return stages * layer_s + shape.batches * self.head_s

        return max(compute_s(0.0), fetch_s), best_split(fetch_s, SAVED[form], compute_s)


def summarise(
    runs: Sequence[Mapping[str, Any]],
    ideal: Mapping[int, tuple[float, Split]],
) -> dict[str, Any]:
    """Gains over ratio 0 beside the ideal ones, per phase and over the run through all."""
    contexts = tuple(ideal)
    steps = {
        setting: {context: _steps_of(runs, setting, context) for context in contexts}
        for setting in dict.fromkeys(run["setting"] for run in runs)
    }
    seconds = {
        name: {c: median_seconds(found) for c, found in by.items()} for name, by in steps.items()
    }
    through = {name: sum(by.values()) for name, by in seconds.items()}
    fixed = [name for name in seconds if name not in (AUTO, NONE)]
    gain = through[NONE] / through[AUTO]
    ideal_gain = sum(zero for zero, _ in ideal.values()) / sum(s.seconds for _, s in ideal.values())
    ours = [step for context in contexts for step in steps[AUTO][context]]
    return {
        "gain": gain,
        "ideal_gain": ideal_gain,
        "of_ideal": gain / ideal_gain,
        "best_fixed": min((*fixed, NONE), key=through.__getitem__),
        "vs_best_fixed": min(through[name] for name in (*fixed, NONE)) / through[AUTO],
        "ratio_follows_context": correlation_of(
            [float(s.context_tokens) for s in ours], [s.recompute_ratio for s in ours]
        ),
        "plan_error": plan_error(ours),
        "through_s": through,
        "phases": {str(c): _phase(c, steps, seconds, ideal[c], fixed) for c in contexts},
    }


def _phase(
    context: int,
    steps: Mapping[str, Mapping[int, Sequence[StepRecord]]],
    seconds: Mapping[str, Mapping[int, float]],
    ideal: tuple[float, Split],
    fixed: Sequence[str],
) -> dict[str, Any]:
    zero_s, split = ideal
    auto, zero = steps[AUTO][context], steps[NONE][context]
    best = min((*fixed, NONE), key=lambda name: seconds[name][context])
    gain = seconds[NONE][context] / seconds[AUTO][context]
    return {
        "gain": gain,
        "ideal_gain": zero_s / split.seconds,
        "of_ideal": gain / (zero_s / split.seconds),
        "ratio": median(step.recompute_ratio for step in auto),
        "ideal_ratio": split.ratio,
        "best_fixed": best,
        "vs_best_fixed": seconds[best][context] / seconds[AUTO][context],
        "plan_error": plan_error(auto),
        "kv_bytes_out": {
            "auto": median(s.kv_bytes_out for s in auto), "0": median(s.kv_bytes_out for s in zero)
        },
        "seconds": {name: by[context] for name, by in seconds.items()},
    }  # fmt: skip


def _steps_of(runs: Sequence[Mapping[str, Any]], setting: str, context: int) -> list[StepRecord]:
    return [step for run in runs if run["setting"] == setting for step in run["phases"][context]]
