"""What the simulator says of published systems: within bars set beforehand, and none left out."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.published import __main__ as published
from benchmarks.published.cases import CASES
from benchmarks.published.models import MIXTRAL_8X7B, OPT_30B, OPT_175B

BARS = {
    "FlexGen OPT-30B on a T4": 0.25,
    "FlexGen OPT-30B on a T4, decode": 0.25,
    "Accelerate OPT-30B on a T4": 0.35,
}


@pytest.mark.parametrize("name", BARS)
def test_the_prediction_is_within_its_bar(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    assert abs(published.figures(case)["error"]) <= BARS[name]


def test_the_models_have_the_parameters_in_their_names() -> None:
    assert OPT_30B.parameters == pytest.approx(30e9, rel=0.02)
    assert OPT_175B.parameters == pytest.approx(175e9, rel=0.02)
    assert MIXTRAL_8X7B.parameters == pytest.approx(46.7e9, rel=0.01)


def test_every_case_says_where_it_is_from_and_what_is_assumed() -> None:
    assert all(case.source and case.assumed for case in CASES)


def test_the_result_holds_every_case(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[dict[str, Any]] = []
    monkeypatch.setattr(published, "publish", lambda result, *_names: results.append(result))
    assert published.main([]) == 0
    (result,) = results
    assert result["benchmark"] == "published"
    assert [case["name"] for case in result["cases"]] == [case.name for case in CASES]
    assert all({"predicted", "published", "error"} <= case.keys() for case in result["cases"])
