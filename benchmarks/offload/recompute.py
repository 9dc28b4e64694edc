"""Recomputing context instead of fetching it: one form, the decided ratio against fixed ones.

32 sequences in 4 batches, weights on the device, KV on the host, and a link over which a token's
KV of one layer takes a quarter of the time that replaying the token through that layer takes.
Every setting is a run of its own that goes through four contexts, a phase each; a phase counts
the passes in which all sequences were decoded. What is ideal follows from probed times alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine_runs import OpenJob, job, write_rows
from benchmarks.jobs import SPECIAL_TOKENS
from benchmarks.offload.figures import decodes, is_steady, median_seconds
from benchmarks.offload.models import RECOMPUTE, kv_bytes_per_token_layer, llama
from benchmarks.offload.placements import Placement
from benchmarks.offload.probes import ComputeProbe, LayerProbe, head_s
from benchmarks.offload.recompute_figures import AUTO, NONE, BlockShape, LayerTimes, summarise
from benchmarks.report import say
from tightrun.core import StepRecord

BATCH, BATCHES = 8, 4
SEQUENCES = BATCH * BATCHES
CONTEXTS, QUICK_CONTEXTS = (64, 128, 256, 512), (64, 128)
PASSES = {64: 5, 128: 4, 256: 3, 512: 3}
MAX_TOKENS = 64
REPLAYED = (1, 8, 16, 32, 64, 128, 256)  # tokens of each sequence
PROJECTED = (64, 256, 1024, 4096)  # rows
FIXED = {
    "tokens": (0.04, 0.08, 0.12, 0.16, 0.20, 0.24, 0.28, 0.34, 0.42, 0.50),
    "activations": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
}
KEPT = (
    *("elapsed_s", "recompute_ratio", "recompute_form", "predicted_s", "bound_s", "compute_s"),
    *("h2d_s", "d2h_s", "idle_s", "kv_bytes_in", "kv_bytes_out", "context_tokens"),
)
SPARE_RUNS = 4
SHAPE = BlockShape(BATCH, BATCHES, RECOMPUTE.layers, kv_bytes_per_token_layer(RECOMPUTE))


def main() -> None:
    told = argparse.ArgumentParser(
        prog="python -m benchmarks.offload.recompute", description=__doc__
    )
    told.add_argument("--form", choices=tuple(FIXED), required=True)
    told.add_argument("--fixed", type=int, default=10, help="fixed ratios of the ten")
    told.add_argument("--seed", type=int, default=0)
    told.add_argument("--workdir", type=Path, required=True)
    told.add_argument("--quick", action="store_true", help="two contexts, two fixed ratios")
    print(json.dumps(Recompute(told.parse_args()).measure()))


def spread(form: str, count: int) -> tuple[float, ...]:
    """So many of the ten fixed ratios of a form, evenly spread."""
    ten = FIXED[form]
    return tuple(ten[(2 * i + 1) * len(ten) // (2 * count)] for i in range(count))


class Recompute:
    """The measurement for one form."""

    def __init__(self, told: argparse.Namespace) -> None:
        self._form: str = told.form
        self._contexts = QUICK_CONTEXTS if told.quick else CONTEXTS
        self._ratios = FIXED[told.form][2:8:3] if told.quick else spread(told.form, told.fixed)
        self._model = llama(RECOMPUTE, told.seed, told.workdir)
        self._out = told.workdir / "out"
        draw = np.random.default_rng(told.seed)
        words = RECOMPUTE.vocab - len(SPECIAL_TOKENS)
        prompts = [
            draw.integers(0, words, context).tolist()
            for context in self._contexts
            for _ in range(SEQUENCES)
        ]
        name = f"recompute-{'-'.join(map(str, self._contexts))}.jsonl"
        self._rows = write_rows(told.workdir / name, prompts)
        self._longest = max(self._contexts) + MAX_TOKENS
        self._placement = Placement(
            RECOMPUTE, BATCHES, BATCH, self._longest, "resident", "host", told.form
        )

    def measure(self) -> dict[str, Any]:
        """Probes, then runs every setting; ratio 0 and the decided one twice."""
        probed = take_times(self._contexts)
        link = probed.link(SHAPE)
        half = len(self._ratios) // 2
        fixed = [str(ratio) for ratio in self._ratios]
        order = [AUTO, NONE, *fixed[:half], AUTO, NONE, *fixed[half:]]
        probe = ComputeProbe()
        runs: list[dict[str, Any]] = []
        for setting in order:
            runs.append(self._run(setting, link, probe))
            if not runs[-1]["steady"] and len(runs) < len(order) + SPARE_RUNS:
                runs.append(self._run(setting, link, probe))
        counted = [run for run in runs if run["steady"]] or runs
        missing = {*order} - {run["setting"] for run in counted}
        counted += [run for run in runs if run["setting"] in missing]
        ideal = {c: probed.ideal(c, self._form, SHAPE) for c in self._contexts}
        return {
            "form": self._form,
            **summarise(counted, ideal),
            "link_bytes_per_s": link,
            "gpu_memory": self._placement.device_bytes,
            "probed": asdict(probed),
            "runs": [{**run, "phases": _plain(run["phases"])} for run in runs],
        }

    def _run(self, setting: str, link: float, probe: ComputeProbe) -> dict[str, Any]:
        before = probe()
        phases: dict[int, list[StepRecord]] = {}
        with self._open(setting, link) as engine:
            for number, context in enumerate(self._contexts):
                rows = engine.rows[number * SEQUENCES : (number + 1) * SEQUENCES]
                # The first full pass still has the prompts' write-outs behind it.
                steps = decodes(engine.run(rows, PASSES[context] + 1), SEQUENCES)[1:]
                if not steps:
                    raise RuntimeError(f"no pass decoded all {SEQUENCES} sequences together")
                phases[context] = steps
            described = engine.describe()
        shown = ", ".join(f"{c}: {median_seconds(s):.2f} s" for c, s in phases.items())
        say(f"{self._form}, ratio {setting}: {shown}")
        after = probe()
        return {
            "setting": setting,
            "steady": is_steady(before, after),
            "probe_flops_per_s": [before, after],
            "phases": phases,
            "plan": described,
        }

    def _open(self, setting: str, link: float) -> OpenJob:
        rate = f"{link / 1e6:.3f}MB/s"
        policy: dict[str, Any] = {"name": "adaptive", "batch_size": BATCH, "batches": BATCHES}
        policy["recompute"] = setting if setting == AUTO else float(setting)
        policy["recompute_form"] = self._form
        memory = f"{self._placement.device_bytes}B"
        described = job(
            self._model,
            self._rows,
            self._out,
            max_tokens=MAX_TOKENS,
            context=self._longest,
            hardware={"device": "emulated", "gpu_memory": memory, "h2d": rate, "d2h": rate},
            policy=policy,
            limits={"gpu_memory": memory},
        )
        return OpenJob(described, self._placement.of)


def take_times(contexts: Sequence[int]) -> LayerTimes:
    """Probes a batch's replay, projection and attention, and the head, by torch alone."""
    layer = LayerProbe(RECOMPUTE)
    return LayerTimes(
        replay=tuple((BATCH * tokens, layer.replay_s(BATCH, tokens)) for tokens in REPLAYED),
        project=tuple((rows, layer.project_s(rows)) for rows in PROJECTED),
        attend={context: layer.attend_s(BATCH, context) for context in contexts},
        head_s=head_s(RECOMPUTE, BATCH),
    )


def _plain(phases: Mapping[int, Sequence[StepRecord]]) -> dict[str, list[dict[str, Any]]]:
    """What is kept of every pass."""
    return {
        str(context): [{name: getattr(step, name) for name in KEPT} for step in steps]
        for context, steps in phases.items()
    }


if __name__ == "__main__":
    main()
