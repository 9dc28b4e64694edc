"""Shares of what outputs were allowed, and what the ended ones tell of the others."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrun.policies.output_shares import PARTS, Learnt, ShareCurve, bin_of

outputs = st.lists(
    st.tuples(st.integers(0, 400), st.integers(1, 400)).map(lambda x: (min(x), x[1])), max_size=80
)


def learnt(ended: list[tuple[int, int]]) -> Learnt:
    found = Learnt()
    for tokens, allowed in ended:
        found.add(tokens, allowed)
    return found


def test_only_what_took_all_it_was_allowed_is_in_the_last_part() -> None:
    assert (bin_of(0, 10), bin_of(9, 10), bin_of(10, 10)) == (0, 57, PARTS)
    assert bin_of(999, 1000) < PARTS


@given(st.lists(st.integers(0, 199), min_size=1, max_size=80))
def test_where_all_have_ended_the_mean_is_that_of_the_outputs(ended: list[int]) -> None:
    found = learnt([(tokens, 200) for tokens in ended])
    assert ShareCurve.of(found, ()).mean(0) == pytest.approx(found.mean_share, rel=0.01)


@given(outputs, outputs)
def test_no_mean_is_below_where_an_output_has_come_to_or_above_all(
    ended: list[tuple[int, int]], running: list[tuple[int, int]]
) -> None:
    means = ShareCurve.of(learnt(ended), running).means
    assert all(0 <= mean <= 1 for mean in means)


def test_those_that_still_run_lengthen_the_mean_to_what_it_will_be() -> None:
    draw = random.Random(7)
    lengths = [min(400, round(draw.lognormvariate(4.3, 0.6))) for _ in range(600)]
    for now in (60, 100, 200):
        ended = learnt([(x, 400) for x in lengths if x <= now])
        running = [(now, 400) for x in lengths if x > now]
        foreseen = 400 * ShareCurve.of(ended, running).mean(0)
        truth = sum(lengths) / len(lengths)
        assert abs(foreseen / truth - 1) < abs(ended.tokens / ended.finished / truth - 1)
        assert foreseen == pytest.approx(truth, rel=0.2)


def test_how_much_of_it_was_seen_is_known() -> None:
    ended = learnt([(10, 100)] * 30)
    assert ShareCurve.of(ended, ()).seen == 1.0
    assert ShareCurve.of(ended, [(50, 100)] * 90).seen == pytest.approx(0.25)


def test_quantiles_are_of_what_is_allowed() -> None:
    found = learnt([(10, 100)] * 60 + [(100, 100)] * 40)
    assert found.quantile(0.5) == pytest.approx(0.1, abs=1 / PARTS)
    assert found.quantile(0.9) == 1.0


def test_it_is_the_same_when_read_again() -> None:
    found = learnt([(3, 10), (9, 10), (10, 10)])
    again = Learnt.of(json.loads(json.dumps(found.as_json())))
    assert again == found


def test_what_another_version_wrote_is_refused() -> None:
    content = learnt([(1, 2)]).as_json() | {"parts": 10}
    with pytest.raises(ValueError, match="parts"):
        Learnt.of(content)


def test_fewer_stand_for_many_with_the_same_shares() -> None:
    many = learnt([(10, 100)] * 900 + [(50, 100)] * 100)
    few = many.scaled(10)
    assert few.finished == 10
    assert (few.mean_share, few.quantile(0.5)) == (many.mean_share, many.quantile(0.5))
    assert few.scaled(20) is few
