"""Training sees batches of one length, answers only, and goes on from where it stopped."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sample_jobs.training.byte_tokenizer import BOS, EOS
from sample_jobs.training.dates_data import training_row
from sample_jobs.training.train_dates import (
    ANSWER_TOKENS,
    answer_loss,
    batches,
    build_model,
    encode,
    rate_at,
    train,
)


def test_a_row_is_trained_on_as_the_tokens_the_job_will_send() -> None:
    row = training_row(random.Random(0))
    tokens = encode(row)
    assert tokens[0] == BOS
    assert tokens[-1] == EOS
    assert bytes(tokens[-ANSWER_TOKENS:-1]).decode() == row.expected
    assert bytes(tokens[1:-ANSWER_TOKENS]).decode() == row.sentence + " =>"


def test_a_batch_has_rows_of_one_length_and_no_padding() -> None:
    found = list(batches(steps=5, batch_size=4, seed=0))
    assert [len(tokens) for tokens in found] == [4] * 5
    assert all((tokens[:, -1] == EOS).all() for tokens in found)


def test_batches_begin_with_bare_dates_and_grow_into_sentences() -> None:
    lengths = [tokens.shape[1] for tokens in batches(steps=200, batch_size=4, seed=0)]
    assert sum(lengths[:10]) < 0.7 * sum(lengths[-10:])


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    assert rate_at(0, 1000) < 0.1
    assert rate_at(300, 1000) == 1.0
    assert rate_at(700, 1000) < 0.5
    assert rate_at(999, 1000) < 0.01


def test_the_loss_does_not_depend_on_how_the_prompt_is_predicted() -> None:
    torch.manual_seed(0)
    tokens = next(batches(steps=1, batch_size=2, seed=0))
    model = build_model()
    loss, _ = answer_loss(model, tokens)
    logits = model(tokens[:, :-1]).logits[:, -ANSWER_TOKENS:].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, tokens[:, -ANSWER_TOKENS:].flatten())
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)


def test_a_stopped_training_goes_on_and_saves_a_model_that_loads(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    train(steps=2, batch_size=2, seed=0, out=tmp_path / "short", state_file=state)
    train(steps=4, batch_size=2, seed=0, out=tmp_path / "long", state_file=state)
    assert torch.load(state)["steps_done"] == 4
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "long")
    tokens = AutoTokenizer.from_pretrained(tmp_path / "long")("3 May 1997 =>", return_tensors="pt")
    logits = model(tokens["input_ids"]).logits
    assert torch.isfinite(logits).all()
