"""Weights in slices: one number of batches a pass, three policies taking turns in one process.

The link is set so that a layer's weights take as long as its batches compute, `Tw = K * c`, where
`c` is what one batch computes in one layer beside a running link (the head's time spread over the
layers). There FlexGen's schedule loses most. All weights are streamed, all KV is on the device.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.engine_runs import OpenJob, job, write_rows
from benchmarks.jobs import SPECIAL_TOKENS, ModelSize
from benchmarks.offload.figures import block_bound, decodes, is_steady, median_seconds, share_of
from benchmarks.offload.models import SLICES, SLICES_QUICK, llama, slab_bytes
from benchmarks.offload.placements import Placement
from benchmarks.offload.probes import ComputeProbe
from benchmarks.report import say
from tightrun.core import StepRecord

POLICIES = ("adaptive", "static", "sync")
PROMPT_TOKENS, MAX_TOKENS = 2, 16
# A sync pass takes nine times as long as an adaptive one, varies as little, and owes nothing to the
# pass before it.
PASSES = {"adaptive": 4, "static": 3, "sync": 1}
WARM_PASSES = {"adaptive": 1, "static": 1, "sync": 0}
FIRST_LINK = 500e6
FASTEST_LINK = 1e9
SPARE_TRIPLES = 3


def main() -> None:
    told = argparse.ArgumentParser(prog="python -m benchmarks.offload.slices", description=__doc__)
    told.add_argument("--batches", type=int, required=True, help="batches a pass, K")
    told.add_argument("--rows", type=int, required=True, help="sequences of a batch")
    told.add_argument("--triples", type=int, required=True, help="triples to keep")
    told.add_argument("--seed", type=int, default=0)
    told.add_argument("--workdir", type=Path, required=True)
    told.add_argument("--quick", action="store_true", help="a model of a few layers")
    arguments = told.parse_args()
    size = SLICES_QUICK if arguments.quick else SLICES
    print(json.dumps(Slices(arguments, size).measure()))


class Slices:
    """The measurement for one K."""

    def __init__(self, told: argparse.Namespace, size: ModelSize) -> None:
        self._size = size
        self._batches: int = told.batches
        self._rows: int = told.rows
        self._triples = told.triples
        self._model = llama(size, told.seed, told.workdir)
        self._out = told.workdir / "out"
        draw = np.random.default_rng(told.seed)
        shape = (self.sequences, PROMPT_TOKENS)
        prompts = draw.integers(0, size.vocab - len(SPECIAL_TOKENS), shape).tolist()
        self._prompts = write_rows(told.workdir / f"slices-{self.sequences}.jsonl", prompts)
        context = PROMPT_TOKENS + MAX_TOKENS
        self._placement = Placement(size, told.batches, told.rows, context, "streamed", "device")

    @property
    def sequences(self) -> int:
        """Sequences of a pass."""
        return self._batches * self._rows

    def measure(self) -> dict[str, Any]:
        """Calibrates the link, then lets the policies take turns."""
        batch_layer_s, calibration = self._calibrate()
        link = min(FASTEST_LINK, slab_bytes(self._size) / (self._batches * batch_layer_s))
        probe = ComputeProbe()
        triples: list[dict[str, Any]] = []
        with ExitStack() as stack:
            engines = {name: stack.enter_context(self._open(name, link)) for name in POLICIES}
            kept = 0
            while kept < self._triples and len(triples) < self._triples + SPARE_TRIPLES:
                triples.append(self._triple(engines, probe, order=len(triples)))
                kept += triples[-1]["steady"]
            described = engines["adaptive"].describe()
        found = summarise(triples, self._bound(batch_layer_s, link))
        return {
            "batches": self._batches,
            "rows_per_batch": self._rows,
            **found,
            "batch_layer_s": batch_layer_s,
            "link_bytes_per_s": link,
            "slab_bytes": slab_bytes(self._size),
            "gpu_memory": self._placement.device_bytes,
            "calibration": calibration,
            "plan": described,
            "triples": triples,
        }

    def _calibrate(self) -> tuple[float, dict[str, Any]]:
        """Seconds that one batch computes in one layer while the link runs."""
        with self._open("adaptive", FIRST_LINK) as trial:
            steps = self._decodes(trial, "adaptive")
        computed = median(step.compute_s for step in steps)
        told = {"link_bytes_per_s": FIRST_LINK, "compute_s": [step.compute_s for step in steps]}
        return computed / (self._batches * self._size.layers), told

    def _triple(
        self, engines: Mapping[str, OpenJob], probe: ComputeProbe, order: int
    ) -> dict[str, Any]:
        """Every policy once, the first of them another each time; compute probed around them."""
        before = probe()
        turns = [*POLICIES[order % 3 :], *POLICIES[: order % 3]]
        steps = {name: self._decodes(engines[name], name) for name in turns}
        after = probe()
        ours = steps["adaptive"]
        say(f"K={self._batches}: " + ", ".join(f"{n} {median_seconds(s):.2f} s" for n, s in
            steps.items()))  # fmt: skip
        return {
            "steady": is_steady(before, after),
            "probe_flops_per_s": [before, after],
            "seconds": {name: [s.elapsed_s for s in steps[name]] for name in POLICIES},
            "compute_s": [s.compute_s for s in ours],
            "h2d_s": [s.h2d_s for s in ours],
            "idle_s": [s.idle_s for s in ours],
            "weight_bytes_in": [s.weight_bytes_in for s in ours],
            "engine_bound_s": [s.bound_s for s in ours],
            "predicted_s": [s.predicted_s for s in ours],
        }

    def _decodes(self, engine: OpenJob, policy: str) -> list[StepRecord]:
        """The full decode passes of a run behind those that still work off its prefill."""
        wanted, warm = PASSES[policy], WARM_PASSES[policy]
        steps = decodes(engine.run(engine.rows, wanted + warm), self.sequences)
        if len(steps) < wanted + warm:
            raise RuntimeError(
                f"{len(steps)} of the passes decoded all {self.sequences} sequences together; "
                "the plan has put fewer of them in a pass"
            )
        return steps[warm:]

    def _bound(self, batch_layer_s: float, link: float) -> float:
        """Least seconds of a pass: K * c in every layer (the head is in `c`), or the weights."""
        streamed = float(slab_bytes(self._size) * self._size.layers)
        return block_bound(self._batches, self._size.layers, batch_layer_s, 0.0, streamed, link)

    def _open(self, policy: str, link: float) -> OpenJob:
        rate, memory = f"{link / 1e6:.3f}MB/s", f"{self._placement.device_bytes}B"
        described = job(
            self._model,
            self._prompts,
            self._out,
            max_tokens=MAX_TOKENS,
            context=PROMPT_TOKENS + MAX_TOKENS,
            hardware={"device": "emulated", "gpu_memory": memory, "h2d": rate, "d2h": rate},
            policy={"name": policy, "batch_size": self._rows, "batches": self._batches},
            limits={"gpu_memory": memory},
        )
        return OpenJob(described, self._placement.of)


def summarise(triples: Sequence[Mapping[str, Any]], bound_s: float) -> dict[str, Any]:
    """Ratios of medians over the triples in which compute kept its speed; None without any."""
    kept = [triple for triple in triples if triple["steady"]]
    medians = {
        name: median(median(triple["seconds"][name]) for triple in kept) if kept else None
        for name in POLICIES
    }
    ours = medians["adaptive"]
    engine_bound = median(median(t["engine_bound_s"]) for t in kept) if kept else 0.0
    return {
        **{name: None if ours is None else medians[name] / ours for name in ("static", "sync")},
        "bound_share": share_of(bound_s, ours),
        "bound_s": bound_s,
        "engine_bound_share": share_of(engine_bound, ours),
        "pass_s": medians,
        "kept_triples": len(kept),
        "dropped_triples": len(triples) - len(kept),
    }


if __name__ == "__main__":
    main()
