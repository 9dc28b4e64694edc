"""The same without compiled kernels, with chunked prefill and NaN in every unused place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.parity.families import RUN
from tests.parity.tiny_models import Oracle, as_text
from tests.runtime.engines import answers, ask, load_tiny, small_engine


@pytest.mark.parametrize("family", RUN)
def test_plain_torch_in_small_chunks_says_what_generate_says(
    family: str, oracle_of: Callable[[str], Oracle], words: Path
) -> None:
    oracle = oracle_of(family)
    # The shared prefix ends inside a block, and prompts are cut into several chunks.
    engine = small_engine(load_tiny(oracle.folder, words), prefill_tokens=48, kv_blocks=24)
    assert engine.kernel.name == "torch"
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
