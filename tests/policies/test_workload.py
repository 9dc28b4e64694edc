"""What a plan is told of a job."""

from __future__ import annotations

from tightrun.policies.plan import Workload
from tightrun.policies.workload import TEMPLATE_TOKENS, workload_of


def test_the_longest_sequence_has_a_token_for_each_byte_and_all_it_may_write() -> None:
    found = workload_of(rows=5, samples=2, max_tokens=7, prompt_bytes=100)
    assert found == Workload(5, 2, 100 + TEMPLATE_TOKENS + 7, most_output=7)


def test_nothing_is_said_of_the_longest_where_it_is_not_known() -> None:
    assert workload_of(rows=None, samples=1, max_tokens=7) == Workload(most_output=7)


def test_a_typical_sequence_is_a_mean_prompt_and_all_it_may_write() -> None:
    found = workload_of(rows=5, samples=1, max_tokens=7, prompts=(10, 20, 60))
    assert (found.typical_sequence, found.typical_output) == (37, 7)
    assert found.prompts == (10, 20, 60)


def test_an_expected_output_stands_in_for_the_most() -> None:
    found = workload_of(rows=5, samples=1, max_tokens=7, prompts=(10, 20), expected_output=3)
    assert (found.typical_sequence, found.typical_output) == (18, 3)
