"""The function transformers calls: what it passes on, and what it does not understand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tightrun.runtime.attention import (
    AttentionSpec,
    UnsupportedAttentionError,
    attention_forward,
    tell_attention_modules,
)

HEADS, TOKENS, DIM = 4, 3, 16


class Noting:
    """Answers with zeros and keeps the spec."""

    def __init__(self) -> None:
        self.spec: AttentionSpec | None = None

    def attention(
        self,
        _module: nn.Module,
        query: torch.Tensor,
        _key: torch.Tensor,
        value: torch.Tensor,
        spec: AttentionSpec,
    ) -> torch.Tensor:
        self.spec = spec
        return query.new_zeros(query.shape[2], query.shape[1], value.shape[3])


def spec_of(module: nn.Module | None = None, **keywords: Any) -> AttentionSpec:
    """What the kernel is asked for when a model calls with these keywords."""
    layer, call = nn.Module(), Noting()
    layer.attention = module or nn.Module()
    tell_attention_modules(layer, call)
    query = torch.zeros(1, HEADS, TOKENS, DIM)
    out, weights = attention_forward(
        layer.attention, query, query, query, keywords.pop("attention_mask", None), **keywords
    )
    assert out.shape == (1, TOKENS, HEADS, DIM)
    assert weights is None
    assert call.spec is not None
    return call.spec


def test_without_keywords_it_is_plain_attention() -> None:
    assert spec_of() == AttentionSpec(scaling=DIM**-0.5)


def test_scaling_window_softcap_and_sinks_come_from_the_keywords() -> None:
    sinks = torch.ones(HEADS)
    spec = spec_of(scaling=0.5, sliding_window=8, softcap=30.0, s_aux=sinks)
    assert (spec.scaling, spec.window, spec.softcap) == (0.5, 8, 30.0)
    assert spec.sinks is sinks


def test_a_window_of_zero_is_no_window() -> None:
    assert spec_of(sliding_window=0).window is None


@pytest.mark.parametrize(
    "keywords",
    [
        {"position_ids": torch.zeros(1, TOKENS)},
        {"use_cache": False, "output_router_logits": True},
        {"is_causal": True},
        {"some_feature": None},
        {"some_feature": False},
    ],
)
def test_keywords_that_change_nothing_are_let_through(keywords: dict[str, Any]) -> None:
    assert spec_of(**keywords) == AttentionSpec(scaling=DIM**-0.5)


@pytest.mark.parametrize(
    ("keywords", "named"),
    [
        ({"some_feature": 1}, "some_feature"),
        ({"position_bias": torch.zeros(4, 4)}, "position_bias"),
        ({"attention_mask": torch.ones(1, 1, 3, 3)}, "a mask"),
        ({"dropout": 0.1}, "dropout"),
        ({"is_causal": False}, "two-way attention"),
    ],
)
def test_an_unknown_wish_is_named_and_never_ignored(keywords: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedAttentionError, match=named):
        spec_of(**keywords)


def test_a_module_that_is_not_causal_is_not_run_as_if_it_were() -> None:
    module = nn.Module()
    module.is_causal = False  # type: ignore[assignment]
    with pytest.raises(UnsupportedAttentionError, match="two-way attention"):
        spec_of(module)
