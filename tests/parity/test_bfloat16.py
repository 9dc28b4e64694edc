"""In bfloat16 only the order of rounding may differ: scores stay those of the model itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.parity.tiny_models import Oracle, as_text
from tests.runtime.engines import answers, ask, load_tiny, small_engine
from tightrun.runtime.engine import Engine

DENSE = ["llama", "gemma2", "opt"]
# Where an expert is nearly as good as another, rounding may choose the other.
ROUTED = ["gpt_oss", "mixtral", "deepseek_v3"]


def scores(engine: Engine, prompts: list[list[int]]) -> list[list[tuple[int, float]]]:
    """(token, log-probability) of each greedy output."""
    asked = [
        ask(i, as_text(p), max_tokens=8, logprobs=0, ignore_eos=True) for i, p in enumerate(prompts)
    ]
    got = answers(engine, asked)
    outputs = [got[i].samples[0].logprobs or () for i in range(len(prompts))]
    return [[(x.token_id, x.logprob) for x in output] for output in outputs]


def own_scores(folder: Path, prompts: list[list[int]], outputs: list[list[int]]) -> torch.Tensor:
    """What the model itself gives to those tokens, `[rows, tokens]`."""
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype=torch.bfloat16).eval()
    found = []
    for prompt, output in zip(prompts, outputs, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + output])).logits[0].float()
        table = torch.log_softmax(logits[len(prompt) - 1 : -1], -1)
        found.append(table.gather(-1, torch.tensor(output)[:, None])[:, 0])
    return torch.stack(found)


@pytest.mark.parametrize("compiled", [False, True], ids=["torch", "compiled"])
@pytest.mark.parametrize("family", DENSE + ROUTED)
def test_scores_are_the_models_own(
    family: str,
    compiled: bool,
    oracle_of: Callable[[str], Oracle],
    words: Path,
    kernel_cache: Path,
) -> None:
    oracle = oracle_of(family)
    cache = kernel_cache if compiled else None
    loaded = load_tiny(oracle.folder, words, "bfloat16", kernel_cache=cache)
    got = scores(small_engine(loaded, prefill_tokens=48), oracle.prompts)
    tokens = [[token for token, _ in output] for output in got]
    assert {len(output) for output in tokens} == {8}
    ours = torch.tensor([[logprob for _, logprob in output] for output in got])
    distance = (ours - own_scores(oracle.folder, oracle.prompts, tokens)).abs()
    assert distance.median() < 0.05
    if family in DENSE:
        assert distance.max() < 0.3
