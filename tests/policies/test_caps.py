"""How wide batches may be after one ran out of memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tightrun.policies.caps import MOST_PATIENCE, PATIENCE, RowCap


def passes(cap: RowCap, limit: int, count: int) -> list[tuple[int, int]]:
    """Passes as wide as they may be where a batch of more than `limit` rows fails.

    Returns (pass, rows that were allowed) for each that failed.
    """
    failures = []
    for number in range(count):
        if cap.rows > limit:
            failures.append((number, cap.rows))
            cap.failed(cap.rows)
        else:
            cap.passed(cap.rows)
    return failures


def test_a_failure_halves_what_failed() -> None:
    cap = RowCap(2048)
    assert cap.failed(812) == 406
    assert cap.holds


def test_a_single_row_stays_one() -> None:
    cap = RowCap(2048)
    assert cap.failed(1) == 1
    assert cap.failed(1) == 1


def test_many_good_passes_raise_it_by_a_quarter_up_to_the_plan() -> None:
    cap = RowCap(1000)
    cap.failed(1000)
    assert [cap.passed(cap.rows) for _ in range(PATIENCE)] == [False] * (PATIENCE - 1) + [True]
    assert cap.rows == 625
    for _ in range(3 * PATIENCE):
        cap.passed(cap.rows)
    assert cap.rows == 1000
    assert not cap.holds


def test_narrow_passes_raise_nothing() -> None:
    cap = RowCap(1000)
    cap.failed(1000)
    assert not any(cap.passed(249) for _ in range(10 * PATIENCE))
    assert cap.rows == 500


def test_a_raise_too_much_goes_back_to_what_went_well() -> None:
    cap = RowCap(1000)
    cap.failed(1000)
    for _ in range(PATIENCE):
        cap.passed(500)
    assert cap.failed(625) == 500


def test_a_narrower_batch_than_what_went_well_is_halved_all_the_same() -> None:
    cap = RowCap(1000)
    cap.failed(1000)
    for _ in range(PATIENCE):
        cap.passed(500)
    assert cap.failed(300) == 150


@given(limit=st.integers(1, 4000), widest=st.integers(1, 4000))
def test_it_does_not_swing(limit: int, widest: int) -> None:
    count = 20_000
    cap = RowCap(widest)
    failures = passes(cap, limit, count)
    # The way down, and then one vain raise each time that patience has doubled.
    assert len(failures) <= 12 + 14
    late = [number for number, _ in failures if number > count // 2]
    assert len(late) <= 1
    assert limit >= cap.rows or count - 1 == failures[-1][0]


@given(limit=st.integers(2, 4000))
def test_it_comes_near_to_what_there_is_memory_for(limit: int) -> None:
    cap = RowCap(4000)
    passes(cap, limit, 20_000)
    assert cap.rows >= 0.75 * limit - 1


def test_patience_has_an_end() -> None:
    cap = RowCap(1000)
    passes(cap, 700, 400_000)
    failures = passes(cap, 700, 4 * MOST_PATIENCE)
    assert 2 <= len(failures) <= 5


def test_what_one_row_was_to_blame_for_is_forgotten() -> None:
    cap = RowCap(2048)
    cap.failed(2048)
    for _ in range(12):
        cap.failed(cap.rows)
    assert cap.rows == 1
    assert cap.acquit(1024) == 1024
