"""The whole way with a real model on an emulated card that is smaller than the model."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tightrun
from tests.cli.jobs import texts, write_rows
from tests.cli.tiny_llama import save_tiny_llama
from tightrun.cli.summary import Summary, closing_lines
from tightrun.io.reports import read_runs, read_steps

PROMPTS = [f"{'abc ' * (number % 4)}row {number}" for number in range(10)]
CARD = {"device": "emulated", "gpu_memory": "800KiB", "cpu_memory": "2GiB"}
LAYERS = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny") / "model", LAYERS)


@pytest.fixture(scope="module")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Summary, Path]:
    """A run over `PROMPTS` and its output."""
    folder = tmp_path_factory.mktemp("streamed")
    rows = [{"id": f"r{n}", "prompt": prompt} for n, prompt in enumerate(PROMPTS)]
    job: dict[str, Any] = {
        "model": str(model),
        "input": {"path": str(write_rows(folder / "in.jsonl", rows))},
        "sampling": {"max_tokens": 12},
        "output": {"path": str(folder / "out")},
        "limits": {"context": 64},
        "hardware": CARD | {"h2d": "200MB/s", "d2h": "200MB/s"},
    }
    return tightrun.run(job, quiet=True), folder / "out"


def generated(model: Path, prompts: list[str]) -> list[str]:
    """What transformers' own greedy generation makes of each prompt."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    hf: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    made = []
    with torch.inference_mode():
        for prompt in prompts:
            tokens = tokenizer(prompt, return_tensors="pt").input_ids
            out = hf.generate(tokens, max_new_tokens=12, do_sample=False, pad_token_id=256)
            made.append(str(tokenizer.decode(out[0, tokens.shape[1] :], skip_special_tokens=True)))
    return made


def test_the_card_is_smaller_than_the_model(model: Path) -> None:
    assert (model / "model.safetensors").stat().st_size > 800 * 1024


def test_the_texts_are_what_generate_says(run: tuple[Summary, Path], model: Path) -> None:
    summary, out = run
    assert summary.failed == 0
    assert texts(out) == generated(model, PROMPTS)


def test_the_card_holds_no_more_than_it_may(run: tuple[Summary, Path]) -> None:
    summary, _ = run
    assert 0 < summary.peak_gpu_bytes <= summary.gpu_budget <= 800 * 1024


def test_the_manifest_has_the_plan(run: tuple[Summary, Path]) -> None:
    summary, out = run
    plan = json.loads((out / "_tightrun" / "manifest.json").read_text())["plan"]
    assert plan["feasible"] is True
    assert plan["placement"]["streamed_layers"] > 0
    assert sum(plan["memory"]["gpu"].values()) <= plan["hardware"]["gpu_memory"]["bytes"]
    assert plan["hardware"]["gpu_memory"]["bytes"] == summary.gpu_budget
    assert plan["predicted"]["output_tokens_per_s"] > 0


def test_the_trace_shows_the_slices_of_the_layers(run: tuple[Summary, Path]) -> None:
    text = gzip.decompress((run[1] / "_tightrun" / "trace.json.gz").read_bytes())
    events: list[dict[str, Any]] = json.loads(text)
    lanes = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    slices = [event for event in events if event["name"].startswith("weights ")]
    assert {lanes[event["tid"]] for event in slices} == {"h2d"}
    assert all(event["args"]["bytes"] > 0 for event in slices)


def test_the_report_tells_what_was_streamed(run: tuple[Summary, Path]) -> None:
    summary, out = run
    (record,) = read_runs(out)
    assert 0 < record.h2d_bytes_per_s < 200e6
    assert "to the device" in dict(closing_lines(summary))["links"]
    steps = read_steps(out)
    assert sum(steps.column("weight_bytes_in").to_pylist()) > 0
    assert min(steps.column("predicted_s").to_pylist()) > 0
