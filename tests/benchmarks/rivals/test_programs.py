"""Each rival's program does the whole job it is told, on a model of a few thousand weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.jobs import JobSize, ModelSize, PreparedJob, prepare
from benchmarks.turns import run_program

SIZE = JobSize(3, 3, 9, 4, ModelSize(64, 2, 4, 2, 96, 64))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> PreparedJob:
    return prepare(SIZE, 0, tmp_path_factory.mktemp("work"))


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        ("hf_generate", ("--batch-size", "2")),
        ("hf_continuous", ("--batch-tokens", "64", "--requests", "2")),
        ("tightrun_run", ()),
    ],
)
def test_a_rival_makes_every_token_of_the_job_and_tells_time_and_memory(
    job: PreparedJob, module: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    ours = module == "tightrun_run"
    prompts = job.prompt_lines if ours else job.prompt_ids
    command = [sys.executable, "-m", f"benchmarks.rivals.{module}", "--model", str(job.model)]
    command += ["--prompts", str(prompts), *flags]
    command += ["--workdir", str(tmp_path)] if ours else []
    answer = run_program([*command, "--max-tokens", "4"], tmp_path / "log")
    assert answer["tokens"] == SIZE.output_tokens
    assert answer["seconds"] > 0
    assert answer["peak_bytes"] > 2**20
    assert answer["versions"]["torch"]
    if ours:
        assert answer["prompt_tokens"] == job.prompt_tokens
        assert answer["outside_seconds"] >= answer["seconds"] - 0.01
