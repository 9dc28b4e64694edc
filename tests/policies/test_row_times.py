"""Time never falls as rows are added, whatever a probe says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policies.machines import TWO_CORES
from tightrun.policies.hardware import Rates
from tightrun.policies.row_times import RowTimes, product_times

points = st.lists(
    st.tuples(st.integers(1, 5000), st.floats(1e6, 1e15)),
    min_size=1,
    max_size=8,
    unique_by=lambda point: point[0],
).map(lambda found: tuple(sorted(found)))


@given(points, st.integers(1, 8000), st.integers(1, 8000))
def test_more_rows_never_take_less_time(
    measured: tuple[tuple[int, float], ...], a: int, b: int
) -> None:
    times = product_times(Rates(measured, 1.0), 1.0)
    few, many = sorted((a, b))
    assert times.seconds(few) <= times.seconds(many) * (1 + 1e-9)


@pytest.mark.parametrize("rows", [1, 16, 64, 256, 2048])
def test_where_the_probe_is_sound_the_rate_is_the_probed_one(rows: int) -> None:
    assert product_times(TWO_CORES, 3.0).seconds(rows) == pytest.approx(
        rows * 3.0 / TWO_CORES.flops_at(rows)
    )


def test_between_two_points_each_row_takes_as_much_more() -> None:
    times = RowTimes([(16, 2.0), (64, 8.0)])
    assert times.seconds(32) == pytest.approx(4.0)


def test_no_rows_take_no_time() -> None:
    assert product_times(TWO_CORES, 1e9).seconds(0) == 0.0


def test_fewer_rows_than_were_timed_take_the_time_of_the_least() -> None:
    assert RowTimes([(16, 2.0)]).seconds(4) == 2.0


def test_beyond_the_probe_time_grows_with_the_rows() -> None:
    times = product_times(TWO_CORES, 1.0)
    assert times.seconds(8192) == pytest.approx(4 * times.seconds(2048))
