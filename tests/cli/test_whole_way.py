"""The whole way with a real model: a job file in, a data set out."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import tightrun
from tests.cli.jobs import texts, write_rows
from tests.cli.tiny_llama import save_tiny_llama
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.main import main
from tightrun.cli.status import status_of

PROMPTS = [f"{'abc ' * (number % 5)}row {number}" for number in range(30)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def job(model: Path, tmp_path: Path) -> dict[str, Any]:
    """A job over `PROMPTS`, which fits a small machine."""
    rows = [{"id": f"r{n}", "prompt": prompt} for n, prompt in enumerate(PROMPTS)]
    return {
        "model": str(model),
        "input": {"path": str(write_rows(tmp_path / "in.jsonl", rows))},
        "sampling": {"max_tokens": 12},
        "output": {"path": str(tmp_path / "out"), "shard_rows": 8},
        "limits": {"cpu_memory": "2GiB"},
    }


@pytest.fixture
def job_file(job: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def generated(model: Path, prompt: str) -> str:
    """What transformers' own greedy generation makes of one prompt."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    hf: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tokens = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.inference_mode():
        out = hf.generate(tokens, max_new_tokens=12, do_sample=False, pad_token_id=256)
    return str(tokenizer.decode(out[0, tokens.shape[1] :], skip_special_tokens=True))


def test_the_command_line_writes_what_generate_says(model: Path, job_file: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(job_file), "--quiet"])
    assert ended.value.code == ExitCode.FINISHED
    out = job_file.parent / "out"
    assert len(list((out / "data").glob("*.parquet"))) == 4
    plan = json.loads((out / "_tightrun" / "manifest.json").read_text())["plan"]
    assert plan["placement"]["streamed_layers"] == 0
    assert plan["predicted"]["seconds"] > 0
    assert texts(out) == [generated(model, prompt) for prompt in PROMPTS]


def test_python_gets_the_same_and_the_summary(job: dict[str, Any]) -> None:
    summary = tightrun.run(job, limit=10, quiet=True)
    assert (summary.rows, summary.failed, summary.exit_code) == (10, 0, ExitCode.FINISHED)
    assert summary.input_tokens == sum(len(prompt) for prompt in PROMPTS[:10])
    assert 0 < summary.output_tokens <= 120
    assert summary.peak_cpu_bytes > 0
    assert summary.bound_share > 0


def test_a_prompt_longer_than_the_context_is_an_error_row(job: dict[str, Any]) -> None:
    path = Path(job["input"]["path"])
    write_rows(path, [{"id": "a", "prompt": "x" * 600}, {"id": "b", "prompt": "y"}])
    summary = tightrun.run(job, quiet=True)
    assert summary.errors == {"context_length": 1}
    assert texts(Path(job["output"]["path"]))[0] is None


@pytest.mark.slow
def test_a_signal_ends_a_real_run_within_20_seconds(job: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "prompt": f"row {n}"} for n in range(20_000)]
    write_rows(Path(job["input"]["path"]), rows)
    job["output"]["shard_rows"] = 10_000
    job["sampling"] = {"max_tokens": 60, "ignore_eos": True}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    source = "from tightrun.cli.main import main; main()"
    command = [sys.executable, "-c", source, str(tmp_path / "job.yaml")]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, stdout=subprocess.PIPE)
    journal = tmp_path / "out" / "_tightrun" / "journal"
    while not any(file.stat().st_size > 1000 for file in journal.glob("rows-*")):
        assert run.poll() is None
        time.sleep(0.1)
    run.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    out, err = run.communicate(timeout=60)
    assert run.returncode == ExitCode.STOPPED, err
    assert time.monotonic() - sent < 20
    assert "SIGTERM was received" in out
    kept = status_of(tmp_path / "out")
    assert (kept.state, kept.rows) == ("stopped", 20_000)
    assert kept.done > 0
