"""The engine on CUDA gives what it gives on the CPU, within its memory budget."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from tests.parity.families import RUN
from tests.parity.tiny_models import as_text, ragged_prompts, save_tiny
from tests.runtime.engines import answers, ask
from tightrun.core import Completion
from tightrun.policies.shape import LayerShape, ModelShape
from tightrun.runtime.cuda_attention import try_varlen
from tightrun.runtime.engine import Engine
from tightrun.runtime.options import EngineOptions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PROMPTS = [as_text(p) for p in ragged_prompts(12, shared=20, longest=40)]
BUDGET = 2**30


def engine_on(device: str, model: Path, tokenizer: Path, dtype: str) -> Engine:
    options = EngineOptions(
        str(model), tokenizer=str(tokenizer), dtype=dtype, device=device, batch_size=5,
        gpu_memory=BUDGET, poison=True,
    )  # fmt: skip
    return Engine.load(options, notify=print)


def greedy(engine: Engine) -> dict[int, str]:
    requests = [ask(i, p, max_tokens=10, ignore_eos=True) for i, p in enumerate(PROMPTS)]
    return {row: c.samples[0].text for row, c in answers(engine, requests).items()}


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3_text", "gpt_oss", "opt", "mixtral"])
def test_float32_text_is_the_cpu_s(family: str, tmp_path: Path, word_tokenizer: Path) -> None:
    model = save_tiny(tmp_path / family, *RUN[family])
    expected = greedy(engine_on("cpu", model, word_tokenizer, "float32"))
    assert greedy(engine_on("cuda:0", model, word_tokenizer, "float32")) == expected


def test_bfloat16_finishes_every_row(tmp_path: Path, word_tokenizer: Path) -> None:
    model = save_tiny(tmp_path / "llama", *RUN["llama"])
    found = greedy(engine_on("cuda:0", model, word_tokenizer, "bfloat16"))
    assert len(found) == len(PROMPTS)


def test_nothing_is_reserved_after_warm_up(tmp_path: Path, word_tokenizer: Path) -> None:
    model = save_tiny(tmp_path / "llama", *RUN["llama"])
    engine = engine_on("cuda:0", model, word_tokenizer, "bfloat16")
    before = torch.cuda.memory_reserved()
    done: list[Completion] = []
    requests = [ask(i, p, max_tokens=10, ignore_eos=True) for i, p in enumerate(PROMPTS)]
    engine.run(requests, done.append, lambda _step: None, threading.Event())
    assert torch.cuda.memory_reserved() <= before
    assert torch.cuda.max_memory_reserved() <= BUDGET


@pytest.mark.parametrize("window", [None, 48])
def test_flash_attention_agrees_or_says_why_not(window: int | None) -> None:
    layer = LayerShape(8, 2, 64, 64, 0, 0, window)
    shape = ModelShape((layer,), 0, 0, 0, 0, 0, 0, 0, 0)
    reasons: list[str] = []
    kernel = try_varlen(shape, 256, torch.bfloat16, torch.device("cuda:0"), reasons.append)
    assert (kernel is None) == bool(reasons)
