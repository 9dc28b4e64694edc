"""The least time of a pass, by hand."""

from __future__ import annotations

import pytest

from tightrun.policies.cost import PassBound, PassWork, bound_of_pass, pass_flops
from tightrun.policies.hardware import Rates
from tightrun.policies.shape import LayerShape, ModelShape

LAYER = LayerShape(
    q_heads=4, kv_heads=2, key_dim=8, value_dim=16, dense_parameters=1000, weight_bytes=2000
)
SHAPE = ModelShape(
    layers=(LAYER, LAYER),
    hidden=32,
    vocab=100,
    parameters=5200,
    weight_bytes=10_400,
    head_parameters=3200,
    element_bytes=2,
    widest=64,
    context=128,
)
RATES = Rates(((1, 1e3), (10, 1e4)), 1e5)
WORK = PassWork(tokens=10, logit_rows=1, attended=55, context_tokens=10)

DENSE = 2 * 2000 * 10
HEAD = 2 * 3200
ATTENTION = 2 * (2 * 4 * (8 + 16)) * 55


def test_flops_are_those_of_layers_head_and_attention() -> None:
    assert pass_flops(SHAPE, WORK) == DENSE + HEAD + ATTENTION


def test_each_part_computes_at_the_rate_of_its_rows() -> None:
    bound = bound_of_pass(SHAPE, RATES, WORK)
    assert bound.compute_s == pytest.approx(DENSE / 1e4 + HEAD / 1e3 + ATTENTION / 1e4)


def test_memory_carries_the_weights_and_the_context_once() -> None:
    kv_bytes = 2 * 2 * (8 + 16) * 2
    bound = bound_of_pass(SHAPE, RATES, WORK)
    assert bound.memory_s == pytest.approx((10_400 + kv_bytes * 10) / 1e5)


def test_a_pass_without_logits_has_no_head() -> None:
    silent = PassWork(10, 0, 55, 10)
    assert pass_flops(SHAPE, silent) == DENSE + ATTENTION
    bound = bound_of_pass(SHAPE, RATES, silent)
    assert bound.compute_s == pytest.approx((DENSE + ATTENTION) / 1e4)


def test_the_slowest_resource_is_the_bound_and_has_its_name() -> None:
    assert (PassBound(2.0, 1.0).bound_s, PassBound(2.0, 1.0).binding) == (2.0, "compute")
    assert (PassBound(1.0, 2.0).bound_s, PassBound(1.0, 2.0).binding) == (2.0, "memory")
