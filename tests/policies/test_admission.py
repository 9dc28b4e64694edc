"""Who may start, and how long outputs are believed to become."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tightrun.policies.admission import OutputLengths, may_start


def learned(*outputs: tuple[int, int], times: int = 1) -> OutputLengths:
    lengths = OutputLengths()
    for tokens, allowed in outputs * times:
        lengths.learn(tokens, allowed)
    return lengths


def test_at_first_the_worst_is_expected() -> None:
    assert OutputLengths().expected(200) == 200
    assert learned((1, 200), times=31).expected(200) == 200


def test_then_the_share_that_was_really_written_and_some_caution() -> None:
    assert learned((20, 200), times=32).expected(200) == 25
    assert learned((20, 200), times=32).expected(1000) == 125


def test_never_more_than_is_allowed() -> None:
    assert learned((200, 200), times=50).expected(200) == 200


def test_never_nothing() -> None:
    assert learned((0, 200), times=50).expected(200) == 1
    assert learned((1, 10_000), times=50).expected(3) == 1


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(1, 500)), max_size=60),
    st.integers(1, 10_000),
)
def test_an_expectation_is_always_possible(outputs: list[tuple[int, int]], most: int) -> None:
    lengths = learned(*((min(tokens, allowed), allowed) for tokens, allowed in outputs))
    assert 1 <= lengths.expected(most) <= most


def test_a_sequence_starts_where_its_blocks_are_free_and_promised_to_nobody() -> None:
    assert may_start(free_blocks=10, promised_blocks=6, wanted_blocks=4, running=3)
    assert not may_start(free_blocks=10, promised_blocks=7, wanted_blocks=4, running=3)


def test_the_first_sequence_always_starts() -> None:
    assert may_start(free_blocks=0, promised_blocks=0, wanted_blocks=4, running=0)
