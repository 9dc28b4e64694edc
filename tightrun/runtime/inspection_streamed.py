"""Learns a model whose layers are not in memory: its shape from empty layers, and whether it gives
the same logits when cut with one layer brought in at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tightrun.policies.shape import ModelShape
from tightrun.runtime.attention import NAME, TorchAttention, UnsupportedAttentionError, register
from tightrun.runtime.inspection import (
    compare_logits,
    packed_logits,
    paged_attention,
    probe_prompts,
    shape_of,
)
from tightrun.runtime.layer_types import exact_context
from tightrun.runtime.model import CutModel, ModelRefusedError
from tightrun.runtime.rope_sides import RopeSides, find_rope_sides

Loaded = Callable[[int], AbstractContextManager[object]]


def learn_streamed(
    model: nn.Module, device: torch.device, bind_empty: Callable[[int], None]
) -> tuple[CutModel, ModelShape, RopeSides, str]:
    """The cut model, its shape, its rope sides, and the attention it came with.

    What surrounds the layers is loaded; `bind_empty(layer)` gives a layer parameters of zeros.
    Raises ModelRefusedError.
    """
    name = type(model).__name__
    config = model.config.get_text_config(decoder=True)  # type: ignore[union-attr, operator]
    attention = str(config._attn_implementation)
    register()
    model.set_attn_implementation(NAME)  # type: ignore[operator]
    cut = CutModel(model, paged_attention(TorchAttention()))
    prompt = probe_prompts(config.vocab_size, device)[0]
    try:
        with torch.inference_mode(), _products_of_zeros():
            bind_empty(0)
            cut.learn_return_types(_return_types(cut, prompt))
            shape = shape_of(cut, prompt, config, bind_empty)
            sides = find_rope_sides(cut, config, device)
        context = exact_context(name, config, shape)
    except UnsupportedAttentionError as error:
        raise ModelRefusedError(f"{name} cannot be run: {error}") from error
    except ModelRefusedError:
        raise
    except (TypeError, RuntimeError, AttributeError, ValueError, LookupError) as error:
        raise ModelRefusedError(f"{name} cannot be cut at its layers: {error}") from error
    return cut, replace(shape, context=context), sides, attention


def prove_streamed(
    cut: CutModel,
    shape: ModelShape,
    attention: str,
    dtype: torch.dtype,
    device: torch.device,
    loaded: Loaded,
    *,
    prompts: int = 4,
) -> None:
    """Compare the cut model with itself as it came, on a tiny batch.

    `loaded(layer)` is entered while a layer runs. Of the batch, `prompts` prompts are compared:
    each takes all weights once. Raises ModelRefusedError.
    """
    name = type(cut.model).__name__
    config: Any = cut.model.config.get_text_config(decoder=True)  # type: ignore[union-attr, operator]
    batch = probe_prompts(config.vocab_size, device)
    compared = batch[-prompts:]
    try:
        with torch.inference_mode(), _each_loaded(cut.layers, loaded):
            cut.model.set_attn_implementation(attention)  # type: ignore[operator]
            with cut.whole():
                expected = [
                    cut.model(input_ids=p[None], use_cache=False).logits[0, -1] for p in compared
                ]
            cut.model.set_attn_implementation(NAME)  # type: ignore[operator]
            got = packed_logits(cut, shape, batch, dtype, device)[-prompts:]
    except (TypeError, RuntimeError, AttributeError, ValueError, LookupError) as error:
        raise ModelRefusedError(f"{name} fails on a tiny batch: {error}") from error
    compare_logits(name, torch.stack(expected).float(), got, dtype)


def _return_types(cut: CutModel, prompt: torch.Tensor) -> list[bool]:
    """Whether layers return tuples: the first one is asked, for the taps cannot know before."""
    seen: list[bool] = []

    def note(_module: nn.Module, _args: Any, output: Any) -> None:
        seen.append(isinstance(output, tuple))

    handle = cut.layers[0].register_forward_hook(note)
    before = cut.answer_attention(
        lambda _c, _m, q, _k, v, _s: q.new_zeros(q.shape[1], q.shape[0], v.shape[2])
    )
    try:
        from tightrun.runtime.projection import batch_of_tokens

        batch = batch_of_tokens(prompt, torch.arange(len(prompt), device=prompt.device))
        cut.prelude(batch)
        cut.run_layer(0, batch)
    finally:
        handle.remove()
        cut.answer_attention(before)
    return seen * len(cut.layers)


@contextmanager
def _products_of_zeros() -> Iterator[None]:
    """Products with weights of zeros without reading them: of 80 large layers that takes minutes.

    Whatever product is made in another way still comes out as it would.
    """
    original = functional.linear

    def linear(x: torch.Tensor, weight: torch.Tensor, *_bias: torch.Tensor | None) -> torch.Tensor:
        return x.new_zeros(*x.shape[:-1], weight.shape[0])

    functional.linear = linear  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.linear = original


@contextmanager
def _each_loaded(layers: list[nn.Module], loaded: Loaded) -> Iterator[None]:
    """Each layer's weights are there while it runs."""
    entered: list[AbstractContextManager[object]] = []

    def enter(index: int) -> Any:
        def hook(_module: nn.Module, _args: Any) -> None:
            entered.append(loaded(index))
            entered[-1].__enter__()

        return hook

    def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
        entered.pop().__exit__(None, None, None)

    handles = [
        handle
        for index, layer in enumerate(layers)
        for handle in (
            layer.register_forward_pre_hook(enter(index)),
            layer.register_forward_hook(leave),
        )
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
