"""The lengths of a job's sequences, in an order that mixes them."""

from __future__ import annotations

from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrun.policies.lengths import Lengths, lengths_of
from tightrun.policies.plan import Workload

prompts = st.lists(st.integers(1, 4000), min_size=1, max_size=256).map(
    lambda found: tuple(sorted(found))
)


@given(prompts, st.integers(1, 500))
def test_every_stretch_of_rows_has_the_lengths_of_all(found: tuple[int, ...], first: int) -> None:
    lengths = Lengths(found, 10)
    stretch = [lengths.prompt_of(first + i) for i in range(2048)]
    assert mean(stretch) == pytest.approx(lengths.prompt, rel=0.02, abs=1)


@given(st.integers(1, 1000), st.integers(1, 2000))
def test_outputs_have_their_mean_and_never_more_than_they_may(output: int, most: int) -> None:
    output = min(output, most)
    lengths = Lengths((100,), output, most_output=most)
    found = [lengths.output_of(i) for i in range(2048)]
    assert mean(found) == pytest.approx(output, rel=0.02, abs=1)
    assert min(found) >= 1
    assert max(found) <= most


def test_outputs_that_nobody_says_vary_are_alike() -> None:
    assert {Lengths((100,), 32).output_of(i) for i in range(100)} == {32}


def test_outputs_that_are_known_are_those_of_every_stretch_of_rows() -> None:
    lengths = Lengths((100,), 20, most_output=50, outputs=(5, 10, 45))
    found = [lengths.output_of(i) for i in range(900)]
    assert all(found.count(tokens) == pytest.approx(300, abs=3) for tokens in (5, 10, 45))


def test_a_row_that_may_write_less_is_reckoned_with_for_less() -> None:
    assert Lengths((100,), 80, most_output=1000).reserved(50, allowed=7) == 57


def test_admission_reckons_with_some_caution_but_no_more_than_may_be_written() -> None:
    assert Lengths((100,), 80, most_output=1000).reserved(50) == 150
    assert Lengths((100,), 80, most_output=90).reserved(50) == 140
    assert Lengths((100,), 80).reserved(50) == 130


def test_blocks_of_a_mean_sequence_are_whole_ones_for_each_prompt() -> None:
    assert Lengths((1, 17), 15).blocks(16) == 2


def test_prompts_and_outputs_of_the_workload_are_taken_as_they_are() -> None:
    found = lengths_of(Workload(10, 2, 2000, typical_output=40, prompts=(10, 50)), 4096)
    assert (found.prompts, found.output, found.sequences) == ((10, 50), 40, 20)


def test_what_exceeds_the_context_is_cut() -> None:
    found = lengths_of(Workload(10, 1, None, typical_output=40, prompts=(10, 5000)), 1024)
    assert found.prompts == (10, 984)


def test_of_a_mean_sequence_a_third_is_output_where_nothing_else_is_said() -> None:
    found = lengths_of(Workload(10, 1, 2000, typical_sequence=300), 4096)
    assert (found.prompts, found.output) == ((200,), 100)


def test_where_nothing_is_known_it_is_a_quarter_of_the_longest() -> None:
    assert lengths_of(Workload(10, 1, 4000), 4096).typical == 1000
    assert lengths_of(Workload(), 4096).typical == 1024
