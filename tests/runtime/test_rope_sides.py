"""Rotary tables that depend on who else is in the call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from tests.parity.families import LONGROPE, RUN
from tightrun.runtime.inspection import inspect_model
from tightrun.runtime.model import ModelRefusedError
from tightrun.runtime.rope_sides import RopeSides


def sides_of(model_type: str, sizes: dict[str, Any]) -> RopeSides:
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(AutoConfig.for_model(model_type, **sizes)).eval()
    return inspect_model(model, torch.device("cpu")).rope_sides


@pytest.mark.parametrize("family", ["llama", "llama_yarn", "gemma3_text", "opt", "gpt2", "phi"])
def test_most_models_have_one_table(family: str) -> None:
    assert sides_of(*RUN[family]) == RopeSides()


def test_longrope_has_two_and_a_threshold() -> None:
    assert sides_of(*LONGROPE) == RopeSides(threshold=64)


def test_longrope_whose_threshold_is_never_passed_has_one() -> None:
    model_type, sizes = LONGROPE
    short = {"max_position_embeddings": 64}
    assert sides_of(model_type, sizes | short) == RopeSides()


def test_a_table_that_follows_the_longest_position_is_refused_by_what_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forward = LlamaRotaryEmbedding.forward

    def stretched(self: Any, x: torch.Tensor, position_ids: torch.Tensor) -> Any:
        cos, sin = forward(self, x, position_ids)
        far = bool(position_ids.max() > 300)
        return (cos * 1.5, sin * 1.5) if far else (cos, sin)

    monkeypatch.setattr(LlamaRotaryEmbedding, "forward", stretched)
    with pytest.raises(ModelRefusedError, match="dynamic rope"):
        sides_of(*RUN["llama"])


def test_a_sequence_takes_the_second_table_if_it_may_feed_a_position_past_the_threshold() -> None:
    sides = RopeSides(threshold=64)
    # The last token written is never fed, so 65 tokens need positions 0 to 63 only.
    assert [sides.side(tokens) for tokens in (1, 64, 65, 66, 500)] == [0, 0, 0, 1, 1]


def test_without_a_threshold_all_are_of_one_side() -> None:
    assert RopeSides().side(10**9) == 0


def test_only_the_second_side_needs_a_far_position_in_the_call() -> None:
    sides = RopeSides(threshold=64)
    assert (sides.pad_position(0), sides.pad_position(1)) == (None, 64)
