"""The least time of a pass, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tightrun.policies.cost import PassBound, PassWork, bound_of_block, bound_of_pass, pass_flops
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


LINKED = replace(RATES, h2d_bytes_per_s=100.0, d2h_bytes_per_s=50.0, disk_bytes_per_s=10.0)


def test_each_link_carries_its_own_bytes() -> None:
    work = replace(WORK, weight_bytes_in=300, kv_bytes_in=100, kv_bytes_out=100, disk_bytes=50)
    bound = bound_of_pass(SHAPE, LINKED, work)
    assert (bound.link_in_s, bound.link_out_s, bound.disk_s) == (4.0, 2.0, 5.0)


def test_what_has_no_link_takes_no_time() -> None:
    work = replace(WORK, weight_bytes_in=300, disk_bytes=50)
    bound = bound_of_pass(SHAPE, RATES, work)
    assert (bound.link_in_s, bound.disk_s) == (0.0, 0.0)


def test_projecting_again_is_work_at_the_rate_of_its_rows() -> None:
    work = replace(WORK, projected_tokens=1, projection_flops=500.0)
    more = bound_of_pass(SHAPE, RATES, work).compute_s - bound_of_pass(SHAPE, RATES, WORK).compute_s
    assert more == pytest.approx(500 / 1e3)
    assert pass_flops(SHAPE, work) == pass_flops(SHAPE, WORK) + 500


@pytest.mark.parametrize(
    ("seconds", "binding"),
    [
        ((3, 2, 2, 2, 2), "compute"),
        ((2, 3, 2, 2, 2), "memory"),
        ((2, 2, 3, 2, 2), "h2d"),
        ((2, 2, 2, 3, 2), "d2h"),
        ((2, 2, 2, 2, 3), "disk"),
    ],
)
def test_a_link_may_bind(seconds: tuple[float, ...], binding: str) -> None:
    assert (PassBound(*seconds).bound_s, PassBound(*seconds).binding) == (3, binding)


def test_the_batches_of_a_pass_take_turns_on_each_resource() -> None:
    moves = PassWork(1, 0, 1, 1, weight_bytes_in=10**6)
    block = bound_of_block(SHAPE, LINKED, [WORK, moves])
    alone = [bound_of_pass(SHAPE, LINKED, work).seconds for work in (WORK, moves)]
    assert block.seconds == pytest.approx([a + b for a, b in zip(*alone, strict=True)])
    assert block.binding == "h2d"
