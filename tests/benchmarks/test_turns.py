"""Rivals take turns; the best setting of the first round goes on; one that fails has no figure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.turns import (
    Measurement,
    Rival,
    RivalError,
    measurement,
    run_program,
    take_turns,
)


def rival(name: str, *settings: str) -> Rival:
    return Rival(name, {setting: (setting,) for setting in settings})


class Runs:
    """Runs that take as long as they are told to; a text instead of seconds is a failure."""

    def __init__(self, seconds: dict[str, list[float | str]]) -> None:
        self.seconds = seconds
        self.order: list[str] = []

    def __call__(self, name: str, setting: str, command: Sequence[str], number: int) -> Measurement:
        assert command == (setting,)
        self.order.append(f"{name} {setting}")
        seconds = self.seconds[setting].pop(0)
        if isinstance(seconds, str):
            raise RivalError(seconds)
        return Measurement(number, setting, 100, seconds, 0)


def test_rivals_alternate_and_only_the_best_setting_comes_again() -> None:
    runs = Runs({"plain": [1, 1, 1], "small": [4], "large": [2, 2, 2]})
    take_turns([rival("A", "plain"), rival("B", "small", "large")], 3, runs)
    assert runs.order == [
        *("A plain", "B small", "B large"),
        *("A plain", "B large"),
        *("A plain", "B large"),
    ]


def test_the_figure_is_the_median_of_the_best_setting_over_all_rounds() -> None:
    runs = Runs({"small": [4.0], "large": [2.0, 5.0, 4.0]})
    (standing,) = take_turns([rival("B", "small", "large")], 3, runs)
    assert standing.best_setting == "large"
    assert [run.tokens_per_s for run in standing.counted] == [50.0, 20.0, 25.0]
    assert standing.tokens_per_s == 25.0


def test_what_a_setting_showed_once_stays_in_the_record() -> None:
    (standing,) = take_turns([rival("B", "small", "large")], 1, Runs({"small": [4], "large": [2]}))
    assert [run.setting for run in standing.measured] == ["small", "large"]


def test_a_setting_that_fails_leaves_the_others_in_the_race() -> None:
    runs = Runs({"compiled": ["no compiler"], "eager": [2.0, 2.0]})
    (standing,) = take_turns([rival("B", "compiled", "eager")], 2, runs)
    assert standing.tokens_per_s == 50.0
    assert standing.error is None
    assert standing.failed_settings == {"compiled": "no compiler"}


def test_a_rival_whose_settings_all_fail_has_no_figure_but_their_errors() -> None:
    runs = Runs({"one": ["killed"], "two": ["no such option"], "plain": [1, 1]})
    broken, good = take_turns([rival("B", "one", "two"), rival("A", "plain")], 2, runs)
    assert broken.tokens_per_s is None
    assert broken.error == "one: killed; two: no such option"
    assert good.tokens_per_s == 100.0


def test_a_rival_that_fails_later_is_out_and_keeps_its_runs() -> None:
    runs = Runs({"plain": [1.0, "killed"]})
    (standing,) = take_turns([rival("A", "plain")], 3, runs)
    assert (standing.tokens_per_s, standing.error) == (None, "plain: killed")
    assert len(standing.measured) == 1


def test_a_rival_that_cannot_run_here_says_why_and_is_never_started() -> None:
    runs = Runs({})
    (standing,) = take_turns([Rival("B", {}, missing="not installed")], 2, runs)
    assert (standing.tokens_per_s, standing.error) == (None, "not installed")
    assert runs.order == []


def program(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_the_answer_is_the_last_line_that_is_an_object(tmp_path: Path) -> None:
    said = "print('{\"tokens\": 1}'); print('warming up'); print('{\"tokens\": 2}'); print('bye')"
    assert run_program(program(said), tmp_path / "log") == {"tokens": 2}


def test_a_program_that_fails_says_the_last_of_its_errors_and_leaves_all_in_the_log(
    tmp_path: Path,
) -> None:
    with pytest.raises(RivalError, match="exit code 1: ValueError: no such model"):
        run_program(program("raise ValueError('no such model')"), tmp_path / "log")
    assert "Traceback" in (tmp_path / "log").read_text()


def test_a_program_that_cannot_be_started_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RivalError, match="cannot be started"):
        run_program([str(tmp_path / "no-python")], tmp_path / "log")


def test_a_program_that_hangs_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RivalError, match="not finished after 0 seconds"):
        run_program(program("import time; time.sleep(60)"), tmp_path / "log", timeout_s=0.2)


def test_a_program_without_an_answer_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RivalError, match="printed no answer"):
        run_program(program("print('done')"), tmp_path / "log")


def test_programs_are_kept_off_the_network(tmp_path: Path) -> None:
    said = "import os, json; print(json.dumps({'offline': os.environ['HF_HUB_OFFLINE']}))"
    assert run_program(program(said), tmp_path / "log") == {"offline": "1"}


def test_an_answer_for_less_than_the_job_does_not_count() -> None:
    answer = {"tokens": 63, "seconds": 1.0, "peak_bytes": 5}
    with pytest.raises(RivalError, match="made 63 tokens instead of 64"):
        measurement(answer, 0, "plain", 64)


def test_what_else_an_answer_tells_is_kept() -> None:
    answer = {"tokens": 64, "seconds": 2.0, "peak_bytes": 5, "versions": {"torch": "2"}}
    shown = measurement(answer, 1, "plain", 64)
    assert (shown.tokens_per_s, shown.peak_bytes) == (32.0, 5)
    assert shown.as_json()["details"] == {"versions": {"torch": "2"}}
