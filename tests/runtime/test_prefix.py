"""How far token lists agree. What is done with it: `test_scheduler`."""

from __future__ import annotations

from array import array
from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from tightrun.runtime.prefix import longest_common_prefix

tokens = st.lists(st.integers(0, 3), max_size=12)


@given(tokens, tokens)
def test_the_common_prefix_is_as_long_as_it_can_be(a: list[int], b: list[int]) -> None:
    agreed = list(takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
    assert longest_common_prefix(a, b) == len(agreed)


@given(tokens, tokens)
def test_packed_tokens_are_compared_alike(a: list[int], b: list[int]) -> None:
    packed = longest_common_prefix(array("i", a), array("i", b))
    assert packed == longest_common_prefix(a, b)
