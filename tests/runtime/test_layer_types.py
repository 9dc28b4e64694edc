"""A window or chunk that only the config knows of is never overlooked."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig, MistralConfig, PretrainedConfig

from tightrun.policies.shape import LayerShape, ModelShape
from tightrun.runtime.layer_types import exact_context
from tightrun.runtime.model import ModelRefusedError

CONTEXT = 1000


def seen(*windows: int | None) -> ModelShape:
    """A model whose attention calls asked for these windows."""
    layers = tuple(LayerShape(1, 1, 8, 8, 0, 0, window) for window in windows)
    return ModelShape(layers, 0, 0, 0, 0, 0, 4, 0, CONTEXT)


def config_of(model_type: str, **fields: Any) -> PretrainedConfig:
    return AutoConfig.for_model(model_type, **fields)


def test_windows_that_the_calls_tell_of_are_no_restriction() -> None:
    assert exact_context("M", MistralConfig(sliding_window=8), seen(8, 8)) == CONTEXT


def test_a_window_that_no_call_tells_of_is_refused() -> None:
    with pytest.raises(ModelRefusedError, match="layer 1 has a sliding window"):
        exact_context("M", MistralConfig(sliding_window=8), seen(8, None))


def test_a_window_as_long_as_the_context_does_not_matter() -> None:
    assert exact_context("M", MistralConfig(sliding_window=CONTEXT), seen(None)) == CONTEXT


def test_a_window_that_is_switched_off_does_not_matter() -> None:
    config = config_of("qwen3_moe", sliding_window=8, use_sliding_window=False)
    assert exact_context("M", config, seen(None)) == CONTEXT


def test_each_layer_is_held_to_its_own_type() -> None:
    types = ["sliding_attention", "full_attention"]
    config = config_of("gemma2", num_hidden_layers=2, layer_types=types, sliding_window=8)
    assert exact_context("M", config, seen(8, None)) == CONTEXT
    with pytest.raises(ModelRefusedError, match="layer 0 has a sliding window"):
        exact_context("M", config, seen(None, None))
    with pytest.raises(ModelRefusedError, match="layer 1 asks for a sliding window"):
        exact_context("M", config, seen(8, 8))


def test_a_window_left_over_from_another_model_is_refused_with_the_remedy() -> None:
    # The model's code does not read it, but the cache of `generate` does.
    with pytest.raises(ModelRefusedError, match=r"remove sliding_window from config\.json"):
        exact_context("M", config_of("llama", sliding_window=8), seen(None))


def test_chunks_end_the_context() -> None:
    config = config_of(
        "llama4_text",
        num_hidden_layers=2,
        layer_types=["chunked_attention", "full_attention"],
        attention_chunk_size=64,
        attn_temperature_tuning=False,
    )
    assert exact_context("M", config, seen(None, None)) == 64


def test_scales_that_depend_on_the_place_in_the_call_are_refused() -> None:
    with pytest.raises(ModelRefusedError, match="attn_temperature_tuning"):
        exact_context("M", config_of("llama4_text"), seen(None))


def test_other_kinds_of_layers_are_refused_by_their_name() -> None:
    config = config_of("lfm2", num_hidden_layers=2, layer_types=["conv", "full_attention"])
    with pytest.raises(ModelRefusedError, match="layer 0 is of the kind 'conv'"):
        exact_context("M", config, seen(None, None))
