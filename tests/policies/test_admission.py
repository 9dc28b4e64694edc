"""Who may start, and how long outputs are believed to become."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrun.policies.admission import OutputLengths, may_start


def learned(
    *outputs: tuple[int, int], times: int = 1, running: tuple[tuple[int, int], ...] = ()
) -> OutputLengths:
    lengths = OutputLengths()
    for tokens, allowed in outputs * times:
        lengths.learn(tokens, allowed)
    if lengths.stale:
        lengths.draw(running)
    return lengths


def test_at_first_the_worst_is_expected() -> None:
    assert OutputLengths().expected(200) == 200
    assert learned((1, 200), times=31).expected(200) == 200


def test_what_was_planned_is_expected_before_the_worst() -> None:
    lengths = OutputLengths(planned=40)
    assert lengths.expected(200) == 50
    assert lengths.expected(30) == 30
    assert (lengths.remaining(200), lengths.remaining(200, 35), lengths.remaining(200, 50)) == (
        40,
        5,
        0,
    )


def test_then_the_share_that_was_really_written_and_some_caution() -> None:
    assert learned((20, 200), times=32).expected(200) == 25
    assert learned((20, 200), times=32).expected(1000) == 125


def test_what_remains_is_reckoned_without_caution() -> None:
    assert learned((20, 200), times=32).remaining(200) == pytest.approx(20)
    assert learned((20, 200), times=32).remaining(200, 5) == pytest.approx(15)


def test_who_has_outlived_the_short_ones_is_expected_to_be_a_long_one() -> None:
    lengths = learned((20, 200), (180, 200), times=20)
    assert lengths.remaining(200) == pytest.approx(100, rel=0.02)
    assert lengths.remaining(200, 50) == pytest.approx(130, rel=0.02)
    assert lengths.expected(200, 50) == 200


def test_the_first_to_finish_do_not_speak_for_those_that_run() -> None:
    alone = learned((10, 200), times=32)
    among_many = learned((10, 200), times=32, running=((10, 200),) * 256)
    assert alone.mean_tokens == pytest.approx(10)
    assert among_many.mean_tokens > 3 * alone.mean_tokens


def test_it_is_drawn_anew_as_more_have_finished() -> None:
    lengths = learned((20, 200), times=32)
    for _ in range(3):
        lengths.learn(20, 200)
    assert not lengths.stale
    lengths.learn(20, 200)
    assert lengths.stale


def test_an_earlier_run_is_begun_with_and_soon_outweighed() -> None:
    lengths = OutputLengths()
    lengths.remember(learned((20, 200), times=10_000).learnt)
    assert lengths.expected(200) == 25
    for _ in range(768):
        lengths.learn(100, 200)
    lengths.draw(())
    assert lengths.mean_tokens == pytest.approx(80)


def test_too_little_of_an_earlier_run_is_not_believed() -> None:
    lengths = OutputLengths()
    lengths.remember(learned((20, 200), times=5).learnt)
    assert lengths.expected(200) == 200


def test_never_more_than_is_allowed() -> None:
    assert learned((200, 200), times=50).expected(200) == 200


def test_never_nothing() -> None:
    assert learned((0, 200), times=50).expected(200) == 1
    assert learned((1, 10_000), times=50).expected(3) == 1


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(1, 500)), max_size=60),
    st.integers(1, 10_000),
    st.integers(0, 10_000),
)
def test_an_expectation_is_always_possible(
    outputs: list[tuple[int, int]], most: int, written: int
) -> None:
    lengths = learned(*((min(tokens, allowed), allowed) for tokens, allowed in outputs))
    assert 1 <= lengths.expected(most, min(most, written)) <= most
    assert 0 <= lengths.remaining(most, min(most, written)) <= most


def test_a_sequence_starts_where_its_blocks_are_free_and_promised_to_nobody() -> None:
    assert may_start(free_blocks=10, promised_blocks=6, wanted_blocks=4, running=3)
    assert not may_start(free_blocks=10, promised_blocks=7, wanted_blocks=4, running=3)


def test_the_first_sequence_always_starts() -> None:
    assert may_start(free_blocks=0, promised_blocks=0, wanted_blocks=4, running=0)
