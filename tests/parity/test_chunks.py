"""Small chunks, a small cache and NaN in every unused place, with plain torch and compiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.parity.families import RUN
from tests.parity.tiny_models import Oracle, as_text
from tests.runtime.engines import answers, ask, load_tiny, small_engine


def assert_says_what_generate_says(oracle: Oracle, words: Path, **options: Any) -> str:
    """Runs the oracle's prompts in chunks and returns the name of the kernel that was used."""
    # The shared prefix ends inside a block, and prompts are cut into several chunks.
    loaded = load_tiny(oracle.folder, words, **options)
    engine = small_engine(loaded, prefill_tokens=48, kv_blocks=24)
    got = answers(
        engine,
        [
            ask(i, as_text(p), max_tokens=oracle.new_tokens, stop_token_ids=tuple(oracle.stops))
            for i, p in enumerate(oracle.prompts)
        ],
    )
    samples = [got[i].samples[0] for i in range(len(oracle.prompts))]
    said = [(s.text, s.finish_reason, s.completion_tokens) for s in samples]
    assert said == oracle.expected
    assert engine.summary().shared_tokens > 0
    return engine.kernel.name


@pytest.mark.parametrize("family", RUN)
def test_plain_torch_says_what_generate_says(
    family: str, oracle_of: Callable[[str], Oracle], words: Path
) -> None:
    assert assert_says_what_generate_says(oracle_of(family), words) == "torch"


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt_oss", "deepseek_v3"])
def test_compiled_kernels_read_nothing_that_is_not_theirs(
    family: str, oracle_of: Callable[[str], Oracle], words: Path, kernel_cache: Path
) -> None:
    assert_says_what_generate_says(oracle_of(family), words, kernel_cache=kernel_cache)
