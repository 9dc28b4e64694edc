"""Rates between and beyond the points that were measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrun.policies.hardware import Rates

RATES = Rates(((1, 10.0), (16, 160.0), (64, 320.0), (256, 300.0)), 1e9)


def test_at_a_measured_point_the_rate_is_the_measured_one() -> None:
    for rows, rate in RATES.flops_per_s:
        assert RATES.flops_at(rows) == rate


def test_between_two_points_time_is_a_straight_line() -> None:
    seconds = (16 / 160 + 64 / 320) / 2
    assert RATES.flops_at(40) == pytest.approx(40 / seconds)


def test_beyond_the_last_point_it_stays() -> None:
    assert RATES.flops_at(10**6) == 300.0


def test_below_the_first_point_it_falls_with_the_rows() -> None:
    rates = Rates(((16, 160.0), (64, 320.0)), 1e9)
    assert rates.flops_at(4) == pytest.approx(40.0)


def test_no_rows_have_the_rate_of_one() -> None:
    assert RATES.flops_at(0) == RATES.flops_at(1)


def test_the_best_rate_need_not_be_the_last() -> None:
    assert RATES.best_flops_per_s == 320.0


points = st.lists(
    st.tuples(st.integers(1, 5000), st.floats(1e6, 1e15)),
    min_size=1,
    max_size=8,
    unique_by=lambda point: point[0],
).map(lambda found: tuple(sorted(found)))


@given(points, st.integers(1, 6000), st.integers(1, 6000))
def test_each_piece_runs_one_way(measured: tuple[tuple[int, float], ...], a: int, b: int) -> None:
    rates = Rates(measured, 1.0)
    low, high = sorted((a, b))
    rows = [r for r, _ in measured]
    assert 0 < rates.flops_at(a) <= rates.best_flops_per_s * (1 + 1e-9)
    if any(low < r < high for r in rows):
        return
    piece = [r for r in (*rows, low, high) if low <= r <= high]
    found = [rates.flops_at(r) for r in sorted(piece)]
    assert found in (sorted(found), sorted(found, reverse=True))
