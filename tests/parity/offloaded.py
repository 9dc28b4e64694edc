"""Tiny engines whose weights and contexts lie where a test wants them, over rough links."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.parity.tiny_models import Oracle, as_text
from tests.runtime.engines import answers, ask
from tightrun.core import Request, Sample, StepRecord
from tightrun.policies.plan import Plan
from tightrun.runtime.accounts import EngineSummary
from tightrun.runtime.engine import Engine
from tightrun.runtime.loaded_model import LoadedModel, Notify
from tightrun.runtime.loading import load
from tightrun.runtime.loading_offloaded import Shaken
from tightrun.runtime.options import EngineOptions, Machine

Loading = Callable[[EngineOptions, Notify, Shaken], LoadedModel]
MIB = 2**20
BLOCK = 16
# Blocks of the longest of the oracles' sequences, 70 + 60 + 12 tokens.
LONGEST = 9


@dataclass(frozen=True)
class Way:
    """One way to run a tiny model of three layers.

    `resident` and `disk` are layers (None: all are resident); the others are streamed from host
    memory. `kv_blocks` lie on the device; `workspace` None is room for `batch_size` sequences.
    """

    policy: str = "adaptive"
    recompute: float | None = None
    form: str = "tokens"
    batches: int = 3
    batch_size: int = 2
    resident: tuple[int, ...] | None = ()
    disk: tuple[int, ...] = ()
    slots: int = 2
    kv_blocks: int = 0
    workspace: int | None = None
    prefill_tokens: int = 64
    staging_rows: int = 8
    most_rows: int = 4096

    def planned(self, plan: Plan) -> Plan:
        blocks = LONGEST * self.batch_size if self.workspace is None else self.workspace
        streams = self.resident is not None
        return replace(
            plan,
            batch_size=self.batch_size,
            batches=self.batches,
            prefill_tokens=self.prefill_tokens,
            most_rows=self.most_rows,
            block_tokens=BLOCK,
            context=512,
            resident_layers=self.resident,
            disk_layers=self.disk,
            slots=self.slots if streams else 0,
            staging_slots=2 if self.disk else 0,
            kv_blocks=self.kv_blocks,
            workspace_blocks=blocks,
            host_blocks=blocks,
            activation_blocks=blocks if self.form != "tokens" else 0,
            staging_rows=self.staging_rows,
        )


@dataclass(frozen=True)
class Run:
    """What an engine said in its run, by row, and its passes."""

    samples: list[Sample]
    steps: list[StepRecord]
    summary: EngineSummary

    @property
    def said(self) -> list[tuple[str, str | None, int]]:
        return [(s.text, s.finish_reason, s.completion_tokens) for s in self.samples]

    @property
    def texts(self) -> list[str]:
        return [sample.text for sample in self.samples]

    @property
    def ratios(self) -> list[float]:
        return [step.recompute_ratio for step in self.steps]


def rough(seed: int, late_s: float = 0.001) -> Shaken:
    """Transfers and host work end late now and then, the later the more seldom."""
    chance = random.Random(seed)
    share = min(0.25, 0.001 / late_s)
    return Shaken(delay=lambda _: late_s if chance.random() < share else 0.0)


@contextmanager
def loaded_engine(
    model: Path,
    words: Path,
    way: Way,
    shaken: Shaken | None = None,
    loading: Loading = load,
    **options: Any,
) -> Iterator[Engine]:
    """An engine over an emulated device, or over the one that the options name."""
    machine = Machine("emulated", 64 * MIB, 64 * MIB, h2d=2e9, d2h=2e9, disk_read=2e9)
    rooms: dict[str, Any] = {"gpu_memory": 64 * MIB, "cpu_memory": 64 * MIB}
    asked = EngineOptions(
        str(model),
        tokenizer=str(words),
        policy=way.policy,
        recompute=way.recompute,
        recompute_form=way.form,
        **{"dtype": "float32", "machine": machine, "poison": True} | rooms | options,
    )
    shaken = replace(shaken or Shaken(), plan=way.planned)
    engine = Engine(asked, loading(asked, lambda _: None, shaken))
    try:
        yield engine
    finally:
        engine.close()


def run_engine(engine: Engine, requests: list[Request]) -> Run:
    """All requests through the engine; none may fail."""
    steps: list[StepRecord] = []
    got = answers(engine, requests, steps)
    assert not [c.error for c in got.values() if c.error]
    return Run([got[i].samples[0] for i in range(len(requests))], steps, engine.summary())


def requests_of(oracle: Oracle) -> list[Request]:
    """The oracle's prompts, with its stop tokens."""
    stops = tuple(oracle.stops)
    return [
        ask(i, as_text(p), max_tokens=oracle.new_tokens, stop_token_ids=stops)
        for i, p in enumerate(oracle.prompts)
    ]


def run_oracle(
    oracle: Oracle, words: Path, way: Way, shaken: Shaken | None = None, **options: Any
) -> Run:
    """The oracle's prompts through an engine of that way."""
    with loaded_engine(oracle.folder, words, way, shaken, **options) as engine:
        return run_engine(engine, requests_of(oracle))
