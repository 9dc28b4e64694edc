"""A row's own sampling over the job's."""

from __future__ import annotations

from typing import Any

import pytest

from tightrun.core import SamplingParams
from tightrun.io.input_types import BadRowError
from tightrun.io.job_sections import SamplingSpec
from tightrun.io.row_sampling import RowSampling

SAMPLING = RowSampling(SamplingSpec(max_tokens=32, temperature=0.5, seed=7, n=2))


def failure(given: Any) -> str:
    with pytest.raises(BadRowError) as caught:
        SAMPLING.override(given)
    assert caught.value.code == "bad_sampling"
    return str(caught.value)


@pytest.mark.parametrize("given", [None, {}, "{}", {"top_p": None, "stop": None}])
def test_a_row_that_asks_for_nothing_has_the_jobs_sampling(given: Any) -> None:
    assert SAMPLING.override(given) == SamplingParams(max_tokens=32, temperature=0.5, seed=7, n=2)


def test_a_row_overrides_only_what_it_names() -> None:
    params = SAMPLING.override({"temperature": 0, "stop": "END", "max_tokens": 8.0, "seed": None})
    expected = SamplingParams(max_tokens=8, temperature=0.0, stop=("END",), seed=7, n=2)
    assert params == expected


def test_the_sampling_may_be_json_text() -> None:
    assert SAMPLING.override('{"seed": 3}').seed == 3


def test_fewer_samples_than_the_jobs_are_fine() -> None:
    assert SAMPLING.override({"n": 1}).n == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"temprature": 1}, "unknown sampling parameter “temprature”; did you mean 'temperature'?"),
        ({"temperature": -1}, "temperature: "),
        ({"temperature": "hot"}, "temperature: "),
        ({"top_p": 0}, "top_p: "),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"max_tokens": 4, "min_tokens": 5}, "min_tokens"),
        ({"n": 3}, "n: 3 samples are more than the job's 2; set sampling.n to 3"),
        ("{", "not JSON"),
        ("[1]", "must be an object"),
        (3, "must be an object or JSON of one, not a number"),
    ],
)
def test_what_cannot_be_done_says_which_parameter_and_why(given: Any, said: str) -> None:
    assert said in failure(given)
