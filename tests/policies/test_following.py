"""The ratio on a simulated machine whose link changes its speed in mid-run, with noise."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.policies.machines import MULTI_HEAD, TWO_CORES
from tightrun.policies.forms import Form, recipe_of
from tightrun.policies.hardware import Rates
from tightrun.policies.kv import BatchLoad, Distributor, PassLoad, PassMeasured
from tightrun.policies.pass_times import PassTimes

RECIPE = recipe_of(MULTI_HEAD)
BATCHES, SEQUENCES = 4, 8
NOISE = 0.05
CHANGE = 30


class Machine:
    """Takes as long as the cost model says at its true rates, and a little more or less."""

    def __init__(self, rates: Rates, form: Form, seed: int) -> None:
        self.times = PassTimes(MULTI_HEAD, rates, form, RECIPE)
        self.oracle = Distributor(
            MULTI_HEAD, rates, form, 16, activation_bytes=RECIPE.activation_bytes,
            projection_flops_per_token=RECIPE.projection_flops,
        )  # fmt: skip
        self.noise = random.Random(seed)

    def run(self, load: PassLoad, recomputed: tuple[int, ...], ratio: float) -> PassMeasured:
        true = self.times.of_pass(load, recomputed, ratio)
        compute_s, in_s, out_s, more = (
            x * self.noise.uniform(1 - NOISE, 1 + NOISE)
            for x in (true.compute_s, true.link_in_s, true.link_out_s, 1.0)
        )
        rates = self.times.rates
        return PassMeasured(
            max(compute_s, in_s, out_s) * more,
            compute_s,
            in_s,
            round(true.link_in_s * rates.h2d_bytes_per_s),
            out_s,
            round(true.link_out_s * rates.d2h_bytes_per_s),
        )


def load_of(present: tuple[int, ...], context: int) -> PassLoad:
    n = SEQUENCES
    return PassLoad(
        tuple(BatchLoad(n, n, n * context, n * context, now, n, n, n * context) for now in present)
    )


def ratios(seed: int, change: float, probe_error: float = 1.0) -> tuple[list[float], list[float]]:
    """The ratios of 80 passes, and the best ones; from pass CHANGE on the link is another."""
    flops = tuple((rows, rate * probe_error) for rows, rate in TWO_CORES.flops_per_s)
    chosen = Distributor(MULTI_HEAD, TWO_CORES, "tokens", 16)
    before = Machine(replace(TWO_CORES, flops_per_s=flops), "tokens", seed)
    link = TWO_CORES.h2d_bytes_per_s * change
    after = Machine(
        replace(TWO_CORES, flops_per_s=flops, h2d_bytes_per_s=link, d2h_bytes_per_s=link),
        "tokens",
        seed,
    )
    present, found, best = (0,) * BATCHES, [], []
    for step in range(80):
        load = load_of(present, 512 + step)
        machine = before if step < CHANGE else after
        decision = chosen.decide(load)
        chosen.learn(machine.run(load, decision.recomputed, decision.ratio))
        found.append(sum(decision.recomputed) / load.offloaded_tokens)
        best.append(machine.oracle.foresee(load))
        present = decision.recomputed
    return found, best


def turns(values: list[float], least: float) -> int:
    """Changes of direction, of which steps below `least` are none."""
    steps = [b - a for a, b in pairwise(values) if abs(b - a) > least]
    return sum(a * b < 0 for a, b in pairwise(steps))


@pytest.mark.parametrize("probe_error", [0.7, 1.0, 1.4])
@pytest.mark.parametrize("seed", range(8))
def test_after_the_link_halves_five_passes_are_enough(seed: int, probe_error: float) -> None:
    found, best = ratios(seed, 0.5, probe_error)
    assert found[CHANGE + 5] == pytest.approx(best[CHANGE + 5], rel=0.1)


@pytest.mark.parametrize("probe_error", [0.7, 1.0, 1.4])
@pytest.mark.parametrize("change", [0.5, 2.0])
def test_noise_does_not_make_the_ratio_swing(change: float, probe_error: float) -> None:
    one_block_per_batch = 16 / (SEQUENCES * 512)
    for seed in range(6):
        found, _ = ratios(seed, change, probe_error)
        assert turns(found[CHANGE + 5 :], one_block_per_batch) <= 5


def test_the_ratio_stays_near_the_best_where_nothing_changes() -> None:
    found, best = ratios(3, 1.0)
    assert all(f == pytest.approx(b, rel=0.1) for f, b in zip(found, best, strict=True))


def test_passes_take_as_long_as_predicted() -> None:
    chosen, machine = (
        Distributor(MULTI_HEAD, TWO_CORES, "tokens", 16),
        Machine(TWO_CORES, "tokens", 5),
    )
    present, errors = (0,) * BATCHES, []
    for step in range(60):
        load = load_of(present, 512 + step)
        decision = chosen.decide(load)
        measured = machine.run(load, decision.recomputed, decision.ratio)
        chosen.learn(measured)
        errors.append(abs(measured.elapsed_s / decision.elapsed_s - 1))
        present = decision.recomputed
    assert sorted(errors)[len(errors) // 2] < 0.05
