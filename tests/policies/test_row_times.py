"""Time never falls as rows are added, whatever a probe says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policies.machines import TWO_CORES
from tightrun.policies.hardware import Rates
from tightrun.policies.row_times import RowTimes

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
    times = RowTimes(Rates(measured, 1.0))
    few, many = sorted((a, b))
    assert times.seconds(few, 1.0) <= times.seconds(many, 1.0) * (1 + 1e-9)


@pytest.mark.parametrize("rows", [1, 5, 16, 40, 256, 600, 2048])
def test_where_the_probe_is_sound_the_rate_is_the_probed_one(rows: int) -> None:
    assert RowTimes(TWO_CORES).seconds(rows, 3.0) == pytest.approx(
        rows * 3.0 / TWO_CORES.flops_at(rows)
    )


def test_no_rows_take_no_time() -> None:
    assert RowTimes(TWO_CORES).seconds(0, 1e9) == 0.0


def test_fewer_rows_than_were_probed_take_the_time_of_the_least() -> None:
    times = RowTimes(Rates(((16, 160.0),), 1.0))
    assert times.seconds(4, 10.0) == pytest.approx(times.seconds(16, 10.0))


def test_beyond_the_probe_time_grows_with_the_rows() -> None:
    times = RowTimes(TWO_CORES)
    assert times.seconds(8192, 1.0) == pytest.approx(4 * times.seconds(2048, 1.0))
