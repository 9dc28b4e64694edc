"""Models that would not be run exactly are refused: one sentence, exit code 2, no output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5ForConditionalGeneration

from tests.parity.command_line import rows_of, run, write_job
from tests.parity.families import REFUSED, RUN, RUN_OR_REFUSED
from tests.parity.tiny_models import Oracle, ragged_prompts, save_tiny
from tightrun.cli.exit_codes import ExitCode


def refusal(model: Path, words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `tightrun` says of a job with this model."""
    job = write_job(tmp_path, {"path": str(model), "tokenizer": str(words)}, [[5, 6, 7]])
    capsys.readouterr()
    assert run(job) == ExitCode.USAGE
    assert not list((tmp_path / "out" / "data").iterdir())
    lines = capsys.readouterr().err.splitlines()
    [said] = [line for line in lines if "tightrun: " in line]
    return said


@pytest.mark.parametrize("family", REFUSED)
def test_a_model_that_cannot_be_cut_is_refused_with_the_reason(
    family: str, words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_type, sizes, reason = REFUSED[family]
    folder = save_tiny(tmp_path / "model", model_type, sizes)
    assert reason in refusal(folder, words, tmp_path, capsys)


@pytest.mark.parametrize("family", RUN_OR_REFUSED)
def test_a_model_of_some_versions_is_refused_or_says_what_generate_says(
    family: str, words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_type, sizes, reason = RUN_OR_REFUSED[family]
    oracle = Oracle(save_tiny(tmp_path / "model", model_type, sizes), ragged_prompts())
    oracle.set_end_token()
    job = write_job(
        tmp_path,
        {"path": str(oracle.folder), "tokenizer": str(words), "dtype": "float32"},
        oracle.prompts,
        sampling={"max_tokens": oracle.new_tokens, "stop_token_ids": oracle.stops},
    )
    if run(job) == ExitCode.USAGE:
        assert reason in capsys.readouterr().err
    else:
        rows = [(r["text"], r["finish_reason"], r["completion_tokens"]) for r in rows_of(job)]
        assert rows == oracle.expected


def test_an_encoder_decoder_is_refused(
    words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = T5Config(d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "model")
    assert "encoder-decoder (t5)" in refusal(tmp_path / "model", words, tmp_path, capsys)


def test_a_pickle_is_not_read(
    words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_tiny(tmp_path / "model", *RUN["llama"])
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    assert "pickle checkpoints are not read" in refusal(folder, words, tmp_path, capsys)


def test_a_checkpoint_without_some_of_its_tensors_is_not_filled_with_noise(
    words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_tiny(tmp_path / "model", *RUN["llama"])
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    said = refusal(folder, words, tmp_path, capsys)
    assert "lacks 1 of the tensors of LlamaForCausalLM" in said
    assert "model.layers.1.mlp.up_proj.weight" in said


def test_a_checkpoint_that_contradicts_its_config_is_refused(
    words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_tiny(tmp_path / "model", *RUN["llama"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))
    assert "cannot load the model" in refusal(folder, words, tmp_path, capsys)


def test_an_unknown_architecture_is_refused(
    words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "of_tomorrow"}))
    assert "of_tomorrow" in refusal(folder, words, tmp_path, capsys)
