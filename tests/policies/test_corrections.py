"""Measured times are believed slowly, and changes of speed soon."""

from __future__ import annotations

import random

import pytest

from tests.policies.machines import TWO_CORES
from tightrun.policies.corrections import Correction, Corrections
from tightrun.policies.cost import PassBound
from tightrun.policies.loads import PassMeasured


def learned(*measured: float) -> Correction:
    correction = Correction()
    for seconds in measured:
        correction.learn(1.0, seconds)
    return correction


def test_it_starts_from_the_probe() -> None:
    assert Correction().factor == 1.0


def test_a_steady_error_is_learnt_whole() -> None:
    assert learned(*[1.15] * 60).factor == pytest.approx(1.15, rel=0.01)
    assert learned(*[3.0] * 60).factor == pytest.approx(3.0, rel=0.01)


def test_the_first_pass_is_believed_as_much_as_the_probe() -> None:
    assert learned(1.44).factor == pytest.approx(1.2)


def test_one_strange_pass_is_not_believed() -> None:
    settled = [1.0] * 20
    assert learned(*settled, 10.0).factor < 1.02
    assert learned(*settled, 0.1).factor > 0.98


def test_two_strange_passes_in_opposite_directions_are_not_believed_either() -> None:
    assert learned(*[1.0] * 20, 3.0, 0.3, 3.0).factor == pytest.approx(1.0, abs=0.03)


def test_the_second_of_its_kind_is() -> None:
    assert learned(*[1.0] * 20, 2.0, 2.0).factor == pytest.approx(2.0, rel=0.1)


def test_no_pass_moves_the_factor_more_than_twofold() -> None:
    correction = learned(*[1.0] * 20)
    for _ in range(5):
        before = correction.factor
        correction.learn(1.0, 100.0)
        assert correction.factor <= 2 * before * (1 + 1e-9)


def test_noise_is_averaged_away() -> None:
    noise = random.Random(1)
    correction = learned(*(noise.uniform(0.95, 1.05) for _ in range(60)))
    seen = []
    for _ in range(100):
        correction.learn(1.0, noise.uniform(0.95, 1.05))
        seen.append(correction.factor)
    assert max(seen) - min(seen) < 0.04


def test_nothing_is_learnt_from_nothing() -> None:
    correction = Correction()
    correction.learn(0.0, 1.0)
    correction.learn(1.0, 0.0)
    assert correction.factor == 1.0


def test_compute_that_waited_for_a_link_is_not_thought_slow() -> None:
    corrections = Corrections()
    waited = PassMeasured(elapsed_s=5.0, compute_s=1.0, link_in_s=5.0, link_in_bytes=1_300_000_000)
    for _ in range(10):
        corrections.learn(PassBound(1.0, 0.0, 5.0), TWO_CORES, waited)
    assert corrections.compute.factor == pytest.approx(1.0)
    assert corrections.link_in.factor == pytest.approx(1.0)
    assert corrections.elapsed.factor == pytest.approx(1.0)


def test_a_link_is_judged_by_the_bytes_it_moved() -> None:
    corrections = Corrections()
    fewer = PassMeasured(elapsed_s=1.0, compute_s=1.0, link_in_s=1.0, link_in_bytes=130_000_000)
    for _ in range(20):
        corrections.learn(PassBound(1.0, 0.0, 5.0), TWO_CORES, fewer)
    assert corrections.link_in.factor == pytest.approx(2.0, rel=0.02)


def test_what_does_not_overlap_is_learnt_apart_from_the_rates() -> None:
    corrections = Corrections()
    gaps = PassMeasured(elapsed_s=1.1, compute_s=1.0)
    for _ in range(40):
        corrections.learn(PassBound(1.0, 0.0), TWO_CORES, gaps)
    assert corrections.elapsed.factor == pytest.approx(1.1, rel=0.01)
    assert corrections.compute.factor == pytest.approx(1.0)


def test_corrections_are_applied_to_each_resource_alone() -> None:
    corrections = Corrections(Correction(2.0), Correction(3.0), Correction(4.0), Correction(5.0))
    assert corrections.applied(PassBound(1.0, 1.0, 1.0, 1.0, 1.0)).seconds == (2, 1, 3, 4, 5)
