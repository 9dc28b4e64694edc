"""Tiny engines on the CPU, with small plans and a poisoned cache."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tightrun.core import Completion, Request, SamplingParams, StepRecord
from tightrun.runtime.engine import Engine
from tightrun.runtime.loaded_model import LoadedModel
from tightrun.runtime.loading import load
from tightrun.runtime.options import EngineOptions


def load_tiny(
    model: Path, tokenizer: Path, dtype: str = "float32", **options: Any
) -> tuple[EngineOptions, LoadedModel]:
    """A loaded model; kernels are plain torch unless `kernel_cache` is given."""
    asked = EngineOptions(
        str(model),
        tokenizer=str(tokenizer),
        dtype=dtype,
        device="cpu",
        poison=True,
        batch_size=5,
        **options,
    )
    return asked, load(asked, notify=lambda _: None)


def small_engine(loaded: tuple[EngineOptions, LoadedModel], **plan: Any) -> Engine:
    """An engine over a loaded model; `plan` replaces sizes of the plan, `kv_blocks` and so on."""
    options, model = loaded
    return Engine(options, replace(model, plan=replace(model.plan, **plan)))


def ask(row: int, prompt: str | tuple[dict[str, str], ...], **sampling: Any) -> Request:
    return Request(row, f"r{row}", prompt, SamplingParams(**sampling))


def answers(
    engine: Engine, requests: Iterable[Request], steps: list[StepRecord] | None = None
) -> dict[int, Completion]:
    """Completions by row."""
    got: list[Completion] = []
    noted: list[StepRecord] = [] if steps is None else steps
    engine.run(requests, got.append, noted.append, threading.Event())
    assert len({completion.row_index for completion in got}) == len(got), "a row came twice"
    return {completion.row_index: completion for completion in got}


def texts(engine: Engine, requests: Iterable[Request]) -> dict[int, str]:
    """The first sample's text by row."""
    return {row: c.samples[0].text for row, c in answers(engine, requests).items()}
