"""The model in the repository: small, complete, and right about rows it was never shown."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from sample_jobs.training.byte_tokenizer import BOS, EOS, PAD, byte_tokenizer
from sample_jobs.training.dates_data import held_out_rows
from sample_jobs.training.evaluate import answers
from sample_jobs.training.make_shards import DATES_FOLDER

MODEL = DATES_FOLDER / "model"
MOST_BYTES = 6_000_000


def test_the_model_folder_stays_small() -> None:
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= MOST_BYTES


def test_a_text_becomes_its_bytes_after_the_begin_token() -> None:
    text = "Malmö, 3 März\n\x00"
    assert byte_tokenizer()(text)["input_ids"] == [BOS, *text.encode()]


def test_bytes_become_their_text_again() -> None:
    text = "¿qué?  ok .\t漢"
    tokens = [BOS, *text.encode(), EOS, PAD]
    assert byte_tokenizer().decode(tokens, skip_special_tokens=True) == text


def test_the_shipped_tokenizer_is_the_byte_tokenizer() -> None:
    shipped = AutoTokenizer.from_pretrained(MODEL)
    assert shipped.get_vocab() == byte_tokenizer().get_vocab()
    assert shipped("3. März")["input_ids"] == byte_tokenizer()("3. März")["input_ids"]
    assert (shipped.bos_token_id, shipped.eos_token_id, shipped.pad_token_id) == (BOS, EOS, PAD)


def test_the_config_names_a_llama_in_float32() -> None:
    config = AutoConfig.from_pretrained(MODEL)
    assert (config.model_type, config.dtype) == ("llama", torch.float32)
    assert config.eos_token_id == EOS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_answers_rows_it_was_never_shown(dtype: torch.dtype) -> None:
    rows = held_out_rows()[:96]
    found = answers(MODEL, [row.sentence for row in rows], dtype)
    right = sum(text == row.expected for text, row in zip(found, rows, strict=True))
    assert right >= 94


def test_the_model_answers_the_example_of_the_readme() -> None:
    found = answers(MODEL, ["invoiced on the 3rd of March 1997"], torch.float32)
    assert found == ["1997-03-03"]
