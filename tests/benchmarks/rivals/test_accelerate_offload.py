"""accelerate's offload does the job it is told, from the checkpoint or from copies of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.jobs import ModelSize
from benchmarks.offload.models import llama_config
from benchmarks.random_model import ensure_model
from benchmarks.turns import run_program

pytest.importorskip("accelerate", reason="a rival, no dependency of ours")

SIZE = ModelSize(64, 2, 4, 2, 96, 64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_model(tmp_path_factory.mktemp("work") / "model", llama_config(SIZE), 0)


@pytest.mark.parametrize("flags", [(), ("--copies",), ("--drop-cache",)])
def test_it_makes_the_tokens_of_its_batches_and_times_every_pass(
    model: Path, flags: tuple[str, ...], tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([[1, 2, 3]] * 5))
    command = [sys.executable, "-m", "benchmarks.rivals.accelerate_offload"]
    command += ["--model", str(model), "--prompts", str(prompts), "--max-tokens", "3"]
    command += ["--batch-size", "2", "--batches", "2", "--weights", "disk"]
    command += ["--offload-folder", str(tmp_path / "offload"), *flags]
    answer = run_program(command, tmp_path / "log")
    assert answer["tokens"] == 2 * 2 * 3
    assert len(answer["pass_seconds"]) == 2 * 3
    assert sum(answer["pass_seconds"]) <= answer["seconds"] * 1.05
