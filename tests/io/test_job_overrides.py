"""`--set a.b=value`: YAML values over those of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tightrun.io.job import Job, JobError, Machine, load_job

SMALLEST: dict[str, Any] = {
    "model": "o/n",
    "input": {"path": ["a.jsonl", "b.jsonl"]},
    "output": {"path": "out/"},
}


def override(*overrides: str, env: dict[str, str] | None = None, **changes: Any) -> Job:
    return load_job({**SMALLEST, **changes}, overrides=overrides, env=env or {})


def refusal(*overrides: str) -> list[str]:
    with pytest.raises(JobError) as error:
        override(*overrides)
    return str(error.value).splitlines()


def test_a_value_of_the_command_line_wins_over_the_file_s() -> None:
    assert override("sampling.n=2", sampling={"n": 1, "seed": 5}).sampling.n == 2


def test_the_other_values_of_the_section_stay() -> None:
    assert override("sampling.n=2", sampling={"n": 1, "seed": 5}).sampling.seed == 5


def test_of_two_the_later_wins() -> None:
    assert override("sampling.n=2", "sampling.n=3").sampling.n == 3


def test_mappings_on_the_way_are_made() -> None:
    job = override("hardware.device=cuda", "hardware.flops.64=30TFLOP/s")
    assert isinstance(job.hardware, Machine)
    assert job.hardware.flops == {64: 3e13}


def test_a_number_as_a_key_replaces_the_file_s() -> None:
    machine = {"device": "cuda", "flops": {64: "1TFLOP/s"}}
    job = override("hardware.flops.64=2TFLOP/s", hardware=machine)
    assert isinstance(job.hardware, Machine)
    assert job.hardware.flops == {64: 2e12}


def test_a_null_on_the_way_becomes_a_mapping() -> None:
    assert override("sampling.n=2", sampling=None).sampling.n == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [("[a, b]", ("a", "b")), ("'#'", ("#",)), ("", ()), ("{}", None), ("[no]", ("no",))],
)
def test_values_are_yaml(text: str, value: tuple[str, ...] | None) -> None:
    if value is None:
        assert refusal(f"sampling.stop={text}")
    else:
        assert override(f"sampling.stop={text}").sampling.stop == value


def test_a_value_may_hold_an_equals_sign() -> None:
    assert override("sampling.stop='a=b'").sampling.stop == ("a=b",)


def test_whole_sections_may_be_set() -> None:
    assert override("policy={name: static, batches: 2}").policy.batches == 2


def test_a_key_below_a_shorthand_keeps_what_it_stands_for() -> None:
    job = override("model.dtype=float32", "policy.batches=2", policy="sync")
    assert (job.model.path, job.model.dtype) == ("o/n", "float32")
    assert (job.policy.name, job.policy.batches) == ("sync", 2)


def test_a_key_below_a_shorthand_of_the_command_line_works_too() -> None:
    job = override("model=x/y", "model.dtype=float32")
    assert (job.model.path, job.model.dtype) == ("x/y", "float32")


def test_a_number_steps_into_a_list() -> None:
    job = override("input.path.1=c.jsonl")
    assert [Path(path).name for path in job.input.path] == ["a.jsonl", "c.jsonl"]


@pytest.mark.parametrize("index", ["2", "-1", "x", "99999999999999"])
def test_a_list_has_no_other_index(index: str) -> None:
    assert refusal(f"input.path.{index}=c") == [
        f"--set input.path.{index}: input.path is a list of 2; {index!r} is no index of it"
    ]


def test_variables_are_put_in() -> None:
    assert override("sampling.seed=${SEED}", env={"SEED": "9"}).sampling.seed == 9


def test_relative_paths_are_resolved_against_the_file(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("model: o/n\ninput: {path: a.jsonl}\noutput: {path: out}\n")
    job = load_job(path, overrides=["output.path=other"], env={})
    assert job.output.path == str(tmp_path / "other")


def test_an_unknown_key_is_told_at_the_flag() -> None:
    assert refusal("input.formt=jsonl") == [
        "--set input.formt: input.formt: unknown key; did you mean 'format'?"
    ]


def test_a_bad_value_is_told_at_the_flag() -> None:
    assert refusal("sampling.n=0") == [
        "--set sampling.n: sampling.n: must be at least 1, not the number 0"
    ]


def test_a_bad_value_below_is_told_with_its_key() -> None:
    assert refusal("sampling={n: 0}") == [
        "--set sampling: sampling.n: must be at least 1, not the number 0"
    ]


def test_errors_of_file_and_flags_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("model: o/n\ninput: {path: a.jsonl}\noutput: {path: out}\nx: 1\n")
    with pytest.raises(JobError) as error:
        load_job(path, overrides=["y=1"], env={})
    assert [str(problem.place) for problem in error.value.errors] == [f"{path}:4:1", "--set y"]


@pytest.mark.parametrize("text", ["", "sampling.n", "=3", "a..b=3", ".=1"])
def test_what_is_no_override_says_how_to_write_one(text: str) -> None:
    remedy = "write a dotted key, =, and a value, as in --set sampling.seed=1"
    assert refusal(text) == [f"--set {text}: {remedy}"]


def test_a_value_that_is_not_yaml_is_told_at_the_flag() -> None:
    (line,) = refusal("input.path=*.parquet")
    assert line.startswith("--set input.path: not valid YAML: ")
    assert line.endswith("a text that begins with * or & needs quotes")


def test_an_unset_variable_is_told_at_the_flag() -> None:
    (line,) = refusal("sampling.seed=${SEED}")
    assert line.startswith("--set sampling.seed: sampling.seed: the environment variable SEED is")


def test_a_job_can_be_overridden_again() -> None:
    job = load_job(override("sampling.n=2", policy="sync"), overrides=["policy.batches=3"], env={})
    assert (job.sampling.n, job.policy.name, job.policy.batches) == (2, "sync", 3)
