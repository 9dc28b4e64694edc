"""`limits.max_failed`."""

from __future__ import annotations

import pytest

from tightrun.cli.failures import reason_of, too_many_failed
from tightrun.io.quantities import Tolerance

FIVE_PERCENT = Tolerance(share=0.05)


@pytest.mark.parametrize(("failed", "seen"), [(1, 1), (5, 20), (5, 100), (10, 200)])
def test_a_share_is_taken_of_a_hundred_rows_at_least(failed: int, seen: int) -> None:
    assert not too_many_failed(failed, seen, FIVE_PERCENT)


@pytest.mark.parametrize(("failed", "seen"), [(6, 6), (6, 100), (11, 200)])
def test_more_than_the_share_is_too_many(failed: int, seen: int) -> None:
    assert too_many_failed(failed, seen, FIVE_PERCENT)


def test_a_count_is_taken_as_it_stands() -> None:
    limit = Tolerance(count=2)
    assert not too_many_failed(2, 2, limit)
    assert too_many_failed(3, 3, limit)


def test_no_limit_lets_every_row_fail() -> None:
    assert not too_many_failed(10**6, 10**6, None)


def test_the_reason_names_the_limit_as_it_was_set() -> None:
    assert reason_of(FIVE_PERCENT) == "more than 5% of the rows failed (limits.max_failed)"
    assert reason_of(Tolerance(count=1)) == "more than 1 row failed (limits.max_failed)"
