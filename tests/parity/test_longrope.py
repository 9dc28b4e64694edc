"""Longrope: a sequence takes the table of its side of the threshold, whoever it runs with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.command_line import rows_of, run, write_job
from tests.parity.tiny_models import Oracle, as_text, ragged_prompts, spoken
from tests.runtime.engines import ask, load_tiny, small_engine, texts

THRESHOLD = 64
NEW = 10


@pytest.fixture(scope="module")
def oracle(longrope_folder: Path) -> Oracle:
    """Prompts on both sides, without those for which `generate` changes the table on the way."""
    prompts = [
        p for p in ragged_prompts(24, shared=20, longest=100)
        if len(p) > THRESHOLD or len(p) + NEW - 1 <= THRESHOLD
    ]  # fmt: skip
    sides = [len(p) > THRESHOLD for p in prompts]
    assert min(sides.count(True), sides.count(False)) >= 6
    return Oracle(longrope_folder, prompts, NEW)


def test_both_sides_of_the_threshold_say_what_generate_says(
    oracle: Oracle, words: Path, tmp_path: Path
) -> None:
    job = write_job(
        tmp_path,
        {"path": str(oracle.folder), "tokenizer": str(words), "dtype": "float32"},
        oracle.prompts,
        sampling={"max_tokens": NEW, "ignore_eos": True},
        policy={"batch_size": 5},
    )
    assert run(job) == 0
    assert [r["text"] for r in rows_of(job)] == [spoken(tokens) for tokens in oracle.generated]


def test_plain_torch_in_small_chunks_says_the_same(oracle: Oracle, words: Path) -> None:
    engine = small_engine(load_tiny(oracle.folder, words), prefill_tokens=48, kv_blocks=12)
    rows = enumerate(oracle.prompts)
    got = texts(engine, [ask(i, as_text(p), max_tokens=NEW, ignore_eos=True) for i, p in rows])
    assert [got[i] for i in range(len(got))] == [spoken(tokens) for tokens in oracle.generated]


def test_one_side_may_share_a_prefix(oracle: Oracle, words: Path) -> None:
    long = [i for i, p in enumerate(oracle.prompts) if len(p) > THRESHOLD]
    engine = small_engine(load_tiny(oracle.folder, words))
    rows = [ask(i, as_text(oracle.prompts[i]), max_tokens=NEW, ignore_eos=True) for i in long]
    assert texts(engine, rows) == {i: spoken(oracle.generated[i]) for i in long}
    assert engine.summary().shared_tokens == 20 * (len(long) - 1)
