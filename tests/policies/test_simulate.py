"""Whole jobs by the cost model: what must hold on any machine, and small ones by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.policies.machines import H200, LLAMA_2_13B, sizes
from tightrun.policies.forms import recipe_of
from tightrun.policies.hardware import Rates
from tightrun.policies.lengths import Lengths
from tightrun.policies.placement import Placement
from tightrun.policies.plan import Predicted
from tightrun.policies.schedule import Schedule
from tightrun.policies.simulate import Policy, simulate

SHAPE = LLAMA_2_13B
STREAMED = Placement(
    batches=4,
    batch_size=16,
    prefill_tokens=2048,
    most_rows=2048,
    block_tokens=16,
    kv_blocks=0,
    lane_blocks=16 * 40,
    streamed=40,
    weight_bytes=float(sum(sizes(SHAPE).layers)),
)
LENGTHS = Lengths((128, 256, 512, 1024), 64, sequences=1000)


def job(
    schedule: Schedule = "adaptive",
    rates: Rates = H200,
    placement: Placement = STREAMED,
    lengths: Lengths = LENGTHS,
) -> Predicted:
    return simulate(SHAPE, rates, recipe_of(SHAPE), placement, lengths, Policy(schedule))


def test_halving_the_link_never_speeds_a_job_up() -> None:
    slow = replace(H200, h2d_bytes_per_s=H200.h2d_bytes_per_s / 2)
    assert job(rates=slow).seconds > job().seconds


def test_adaptive_is_no_slower_than_static_nor_that_than_sync() -> None:
    adaptive, static, sync = (job(x).seconds for x in ("adaptive", "static", "sync"))
    assert adaptive <= static <= sync


def test_a_long_job_takes_as_much_longer_as_it_has_more_rows() -> None:
    one, ten = (
        job(lengths=replace(LENGTHS, sequences=4000)),
        job(lengths=replace(LENGTHS, sequences=40_000)),
    )
    assert ten.seconds == pytest.approx(10 * one.seconds, rel=0.03)


def test_every_output_token_is_counted_once() -> None:
    few = replace(LENGTHS, sequences=100)
    found = job(lengths=few)
    assert found.output_tokens_per_s * found.seconds == pytest.approx(100 * 64)
