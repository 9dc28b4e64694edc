"""The job of a benchmark is the same for one seed, and its model and FLOPs are as they are said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.jobs import (
    FULL,
    JobSize,
    ModelSize,
    PreparedJob,
    dense_flops,
    prepare,
    random_prompts,
    text_of,
)

TINY = JobSize(5, 3, 9, 4, ModelSize(32, 2, 4, 2, 48, 64))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> PreparedJob:
    return prepare(TINY, 7, tmp_path_factory.mktemp("work"))


def test_the_full_model_has_246_million_parameters() -> None:
    assert round(FULL.model.parameters / 1e6) == 246


def test_the_full_job_has_64_prompts_of_32_to_383_tokens_and_about_13_500_in_all() -> None:
    lengths = [len(prompt) for prompt in random_prompts(FULL, 0)]
    assert len(lengths) == 64
    assert min(lengths) >= 32
    assert max(lengths) <= 383
    assert sum(lengths) == 13_498


def test_prompts_are_the_same_for_a_seed_and_others_for_another() -> None:
    assert random_prompts(TINY, 1) == random_prompts(TINY, 1)
    assert random_prompts(TINY, 1) != random_prompts(TINY, 2)


def test_no_prompt_has_a_special_token() -> None:
    crowded = JobSize(50, 50, 50, 1, ModelSize(32, 2, 4, 2, 48, 8))
    drawn = {token for prompt in random_prompts(crowded, 0) for token in prompt}
    assert drawn == set(range(5))


def test_flops_leave_out_the_last_token_of_a_row_which_is_never_fed() -> None:
    one_layer = JobSize(2, 1, 9, 4, ModelSize(2, 1, 1, 1, 3, 10))
    layer = 2 * 2 * 4 + 2 * 3 * 3
    fed, heads = (5 + 3) + (6 + 3), 2 * 4
    assert dense_flops(one_layer, (5, 6)) == 2 * (layer * fed + 2 * 10 * heads)


def test_the_saved_model_has_the_parameters_that_were_counted_in_bfloat16(job: PreparedJob) -> None:
    model = AutoModelForCausalLM.from_pretrained(job.model)
    assert model.num_parameters() == TINY.model.parameters
    assert model.dtype == torch.bfloat16


def test_a_word_is_exactly_its_token(job: PreparedJob) -> None:
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    assert tokenizer.encode("w17 w42") == [17, 42]
    assert tokenizer.encode("w17<eos>") == [17, TINY.model.vocab - 1]


def test_both_forms_of_the_prompts_are_the_same_tokens(job: PreparedJob) -> None:
    prompts = json.loads(job.prompt_ids.read_text())
    rows = [json.loads(line) for line in job.prompt_lines.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [text_of(prompt) for prompt in prompts]
    assert job.lengths == tuple(len(prompt) for prompt in prompts)


def test_a_job_that_is_there_is_used_again(job: PreparedJob) -> None:
    weights = job.model / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert prepare(TINY, 7, job.folder.parent) == job
    assert weights.stat().st_mtime_ns == before


def test_a_job_of_other_sizes_under_the_same_name_is_made_anew(tmp_path: Path) -> None:
    first = prepare(TINY, 0, tmp_path)
    other = JobSize(5, 10, 12, 4, TINY.model)
    second = prepare(other, 0, tmp_path)
    assert second.folder == first.folder
    assert min(len(prompt) for prompt in json.loads(second.prompt_ids.read_text())) >= 10


def test_a_tokenizer_that_gives_other_tokens_is_refused(tmp_path: Path) -> None:
    job = prepare(TINY, 0, tmp_path)
    saved = job.model / "tokenizer.json"
    changed = json.loads(saved.read_text())
    ids = changed["model"]["vocab"]
    ids.update({word: (ids[word] + 1) % TINY.model.vocab for word in ids})
    saved.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="other tokens than the prompt was made of"):
        prepare(TINY, 0, tmp_path)
