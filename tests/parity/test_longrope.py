"""Longrope: a sequence takes the table of its side of the threshold, whoever it runs with."""

from __future__ import annotations

from pathlib import Path

from tests.parity.command_line import rows_of, run, write_job
from tests.parity.tiny_models import Oracle, ragged_prompts, spoken

THRESHOLD = 64
NEW = 10


def test_both_sides_of_the_threshold_say_what_generate_says(
    longrope_folder: Path, words: Path, tmp_path: Path
) -> None:
    prompts = [p for p in ragged_prompts(24, shared=20, longest=100) if not _crosses(len(p))]
    sides = [len(p) > THRESHOLD for p in prompts]
    assert min(sides.count(True), sides.count(False)) >= 6
    oracle = Oracle(longrope_folder, prompts, NEW)
    job = write_job(
        tmp_path,
        {"path": str(longrope_folder), "tokenizer": str(words), "dtype": "float32"},
        prompts,
        sampling={"max_tokens": NEW, "ignore_eos": True},
        policy={"batch_size": 5},
    )
    assert run(job) == 0
    assert [r["text"] for r in rows_of(job)] == [spoken(tokens) for tokens in oracle.generated]


def _crosses(prompt: int) -> bool:
    """Whether `generate` would change the table in the middle of the output."""
    return prompt <= THRESHOLD < prompt + NEW - 1
