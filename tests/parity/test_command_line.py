"""Greedy float32 output equals transformers' own `generate`, token for token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.parity.command_line import rows_of, run, write_job
from tests.parity.families import RUN
from tests.parity.tiny_models import Oracle


@pytest.mark.parametrize("family", RUN)
def test_a_ragged_job_says_what_generate_says(
    family: str, oracle_of: Callable[[str], Oracle], words: Path, tmp_path: Path
) -> None:
    oracle = oracle_of(family)
    job = write_job(
        tmp_path,
        {"path": str(oracle.folder), "tokenizer": str(words), "dtype": "float32"},
        oracle.prompts,
        sampling={"max_tokens": oracle.new_tokens, "stop_token_ids": oracle.stops},
        policy={"batch_size": 5},
    )
    assert run(job) == 0
    rows = [(r["text"], r["finish_reason"], r["completion_tokens"]) for r in rows_of(job)]
    assert rows == oracle.expected


def test_shards_smaller_than_the_look_ahead_do_not_stop_the_run(
    oracle_of: Callable[[str], Oracle], words: Path, tmp_path: Path
) -> None:
    oracle = oracle_of("llama")
    job = write_job(
        tmp_path,
        {"path": str(oracle.folder), "tokenizer": str(words), "dtype": "float32"},
        oracle.prompts,
        sampling={"max_tokens": oracle.new_tokens, "stop_token_ids": oracle.stops},
        output={"path": str(tmp_path / "out"), "shard_rows": 2},
        limits={"time": "60s"},
    )
    assert run(job) == 0
    assert [r["text"] for r in rows_of(job)] == [text for text, *_ in oracle.expected]


def test_the_oracles_can_tell_right_from_wrong(oracle_of: Callable[[str], Oracle]) -> None:
    for family in RUN:
        oracle = oracle_of(family)
        assert len({tuple(tokens) for tokens in oracle.generated}) > 10, family
        assert {reason for _, reason, _ in oracle.expected} == {"stop", "length"}, family
