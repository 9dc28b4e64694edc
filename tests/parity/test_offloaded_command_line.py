"""A job on a card that is smaller than its model, as a person writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.parity.command_line import rows_of, run, write_job
from tests.parity.tiny_models import Oracle

SMALL = {"device": "emulated", "cpu_memory": "2GiB", "h2d": "2GB/s", "d2h": "2GB/s"}
ALL = {"gpu_memory": 1.0, "cpu_memory": 1.0}
# Less than weights and one sequence's KV: two slots, what surrounds the layers, and that KV.
GPU_MEMORY = {"llama": "560KiB", "gemma3_text": "560KiB", "mixtral": "1000KiB"} | {
    "deepseek_v3": "860KiB"
}


def job_of(oracle: Oracle, words: Path, folder: Path, **parts: Any) -> Path:
    return write_job(
        folder,
        {"path": str(oracle.folder), "tokenizer": str(words), "dtype": "float32"},
        oracle.prompts,
        sampling={"max_tokens": oracle.new_tokens, "stop_token_ids": oracle.stops},
        **parts,
    )


def steps_of(job: Path) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = pq.read_table(
        job.parent / "out" / "_tightrun" / "report" / "steps"
    ).to_pylist()
    return steps


@pytest.mark.parametrize("policy", ["adaptive", "static", "sync"])
@pytest.mark.parametrize("family", GPU_MEMORY)
def test_a_card_smaller_than_the_model_says_what_generate_says(
    family: str,
    policy: str,
    oracle_of: Callable[[str], Oracle],
    words: Path,
    tmp_path: Path,
) -> None:
    oracle = oracle_of(family)
    job = job_of(
        oracle, words, tmp_path, policy=policy, hardware=SMALL | {"gpu_memory": GPU_MEMORY[family]},
        limits=ALL | {"context": 192},
    )  # fmt: skip
    assert run(job) == 0
    rows = [(r["text"], r["finish_reason"], r["completion_tokens"]) for r in rows_of(job)]
    assert rows == oracle.expected
    assert all(step["weight_bytes_in"] > 0 for step in steps_of(job))


@pytest.mark.parametrize("form", ["tokens", "activations"])
def test_a_forced_ratio_is_in_the_steps(
    form: str, oracle_of: Callable[[str], Oracle], words: Path, tmp_path: Path
) -> None:
    oracle = oracle_of("llama")
    job = job_of(
        oracle,
        words,
        tmp_path,
        policy={"name": "adaptive", "recompute": 0.5, "recompute_form": form, "batches": 3},
        hardware=SMALL | {"gpu_memory": "850KiB"},
        limits=ALL,
    )
    assert run(job) == 0
    assert [r["text"] for r in rows_of(job)] == [text for text, *_ in oracle.expected]
    steps = steps_of(job)
    assert {step["recompute_form"] for step in steps if step["recompute_ratio"]} == {form}
    assert max(step["batches"] for step in steps) == 3


def test_a_layer_larger_than_half_the_device_ends_with_4_and_the_sum(
    oracle_of: Callable[[str], Oracle],
    words: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = job_of(
        oracle_of("llama"), words, tmp_path, hardware=SMALL | {"gpu_memory": "240KiB"}, limits=ALL
    )
    assert run(job) == 4
    said = " ".join(capsys.readouterr().err.split())
    assert "slots 248 KiB" in said
    assert "A layer must fit 2 times" in said
