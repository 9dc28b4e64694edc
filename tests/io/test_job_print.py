"""What a job says of itself: resolved values, origins, schema, starter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrun.io.job import (
    Job,
    job_schema,
    load_job,
    origins,
    print_config,
    starter_text,
)

REPOSITORY = Path(__file__).parents[2]

TEXT = """\
model: ${MODEL}
input:
  path: [a.jsonl, "${PLACE:-b.jsonl}"]
  template: "$${x} {{ y }}\\n"
sampling: {stop: "###", n: 2}
output: {path: out, keep_columns: [a, "no"]}
hardware: {device: emulated, gpu_memory: 400MiB, flops: {64: 30TFLOP/s}}
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(TEXT)
    return load_job("job.yaml", overrides=["sampling.seed=3"], env={"MODEL": "o/n"})


def reloaded(job: Job, folder: Path, **env: str) -> Job:
    path = folder / "printed.yaml"
    path.write_text(print_config(job), encoding="utf-8")
    return load_job(path, env=env)


def test_every_value_has_its_origin(job: Job) -> None:
    found = origins(job)
    assert found["model.path"] == "environment MODEL"
    assert found["model.dtype"] == "default"
    assert found["input.path"] == "job.yaml:3"
    assert found["input.template"] == "job.yaml:4"
    assert found["sampling.stop"] == "job.yaml:5"
    assert found["sampling.seed"] == "--set"
    assert found["hardware.flops.64"] == "job.yaml:7"
    assert found["policy.name"] == "default"


def test_the_printed_job_says_value_and_origin_in_one_line(job: Job) -> None:
    lines = [line.split() for line in print_config(job).splitlines()]
    assert ["path:", "o/n", "#", "environment", "MODEL"] in lines
    assert ["seed:", "3", "#", "--set"] in lines
    assert ["gpu_memory:", "90%", "#", "default"] in lines
    assert ["keep_columns:", "[a,", "no]", "#", "job.yaml:6"] in lines


def test_the_printed_job_loads_as_the_same_job(job: Job, tmp_path: Path) -> None:
    assert reloaded(job, tmp_path).resolved() == job.resolved()


@pytest.mark.filterwarnings("error")
def test_the_resolved_job_is_plain_json_and_loads_as_the_same_job(job: Job) -> None:
    plain = json.loads(json.dumps(job.resolved()))
    assert load_job(plain, env={}).resolved() == plain


def test_a_value_from_a_secret_stays_the_variable_it_was(tmp_path: Path) -> None:
    text = "model: o/n\ninput: {path: 's3://${S3_SECRET_KEY}@x/y.jsonl'}\noutput: {path: out}\n"
    (tmp_path / "job.yaml").write_text(text)
    job = load_job(tmp_path / "job.yaml", env={"S3_SECRET_KEY": "hunter2"})
    assert job.input.path == ("s3://hunter2@x/y.jsonl",)
    assert job.resolved()["input"]["path"] == ["s3://${S3_SECRET_KEY}@x/y.jsonl"]
    assert "hunter2" not in print_config(job)
    again = reloaded(job, tmp_path, S3_SECRET_KEY="hunter2")
    assert again.input.path == job.input.path


def test_a_secret_stays_one_when_the_job_is_overridden(tmp_path: Path) -> None:
    text = "model: o/n\ninput: {path: x.jsonl, system: '${MY_TOKEN}'}\noutput: {path: out}\n"
    (tmp_path / "job.yaml").write_text(text)
    job = load_job(tmp_path / "job.yaml", env={"MY_TOKEN": "hunter2"})
    again = load_job(job, overrides=["sampling.n=2"], env={})
    assert again.input.system == "hunter2"
    assert again.resolved()["input"]["system"] == "${MY_TOKEN}"


PRINTABLE_OR_NOT = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)


@settings(deadline=None)
@given(
    stop=st.lists(PRINTABLE_OR_NOT, max_size=3),
    system=st.none() | st.text(st.characters(codec="utf-8")),
    columns=st.lists(st.text(st.characters(codec="utf-8")), max_size=3),
    temperature=st.floats(0, 10),
    seed=st.integers(-(2**63), 2**63 - 1),
    limits=st.fixed_dictionaries(
        {},
        optional={
            "gpu_memory": st.integers(2**20, 2**50) | st.floats(0.01, 1),
            "max_failed": st.integers(0, 10**6) | st.just("none"),
            "time": st.integers(1, 10**6).map("{}s".format),
            "context": st.integers(1, 10**6) | st.just("auto"),
        },
    ),
)
def test_any_job_is_printed_so_that_it_loads_again(
    tmp_path_factory: pytest.TempPathFactory,
    stop: list[str],
    system: str | None,
    columns: list[str],
    temperature: float,
    seed: int,
    limits: dict[str, Any],
) -> None:
    values = {
        "model": "o/n",
        "input": {"path": "x.jsonl", "system": system},
        "sampling": {"stop": stop, "temperature": temperature, "seed": seed},
        "output": {"path": "out", "keep_columns": columns},
        "limits": limits,
    }
    job = load_job(values, env={})
    assert reloaded(job, tmp_path_factory.getbasetemp()).resolved() == job.resolved()


def test_the_starter_loads(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(starter_text())
    assert load_job(tmp_path / "job.yaml", env={}).input.prompt == "question"


def test_the_starter_shows_every_key_of_these_sections_with_its_default(tmp_path: Path) -> None:
    head, comment, tail = starter_text().partition("sampling:\n")
    full = head + comment + re.sub(r"^  # (\w+:)", r"  \1", tail, flags=re.MULTILINE)
    (tmp_path / "short.yaml").write_text(starter_text())
    (tmp_path / "full.yaml").write_text(full)
    short = load_job(tmp_path / "short.yaml", env={})
    job = load_job(tmp_path / "full.yaml", env={})
    assert job.resolved() == short.resolved()
    sections = ("sampling.", "output.", "limits.")
    unsaid = [key for key, origin in origins(job).items() if origin == "default"]
    assert [key for key in unsaid if key.startswith(sections)] == []


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "sample_jobs").glob("*.yaml")), ids=lambda path: path.name
)
def test_the_sample_jobs_load(path: Path) -> None:
    assert load_job(path).path == path


def properties() -> Iterator[tuple[str, dict[str, Any]]]:
    schema = job_schema()
    for part in (schema, *schema["$defs"].values()):
        for key, rules in part["properties"].items():
            yield f"{part['title']}.{key}", rules


def test_the_schema_describes_every_key() -> None:
    parts = job_schema()["$defs"]
    for name, rules in properties():
        target = parts.get(rules.get("$ref", "").rpartition("/")[2], {})
        assert rules.get("description") or target.get("description"), name


def test_the_schema_names_every_key_of_every_section() -> None:
    named = {name.partition(".")[2] for name, _ in properties()}
    assert named >= {
        "model",
        "path",
        "max_tokens",
        "keep_columns",
        "max_failed",
        "flops",
        "batches",
    }


def test_the_schema_refuses_unknown_keys() -> None:
    schema = job_schema()
    parts = [schema, *schema["$defs"].values()]
    assert all(part["additionalProperties"] is False for part in parts)


def test_the_schema_spells_defaults_as_the_file_does() -> None:
    rules = dict(properties())
    assert rules["LimitsSpec.gpu_memory"]["default"] == "90%"
    assert rules["LimitsSpec.time"]["default"] == "none"
    assert rules["PolicySpec.batches"]["default"] == "auto"


def test_the_schema_knows_bounds_shorthands_and_lists() -> None:
    rules = dict(properties())
    assert rules["SamplingSpec.logprobs"]["maximum"] == 20
    assert {"type": "string"} in rules["SamplingSpec.stop"]["anyOf"]
    assert {"type": "string"} in rules["tightrun job.model"]["anyOf"]
    assert ["adaptive", "static", "sync"] in [
        form.get("enum") for form in rules["tightrun job.policy"]["anyOf"]
    ]


def test_the_schema_is_plain_json() -> None:
    assert json.loads(json.dumps(job_schema())) == job_schema()
