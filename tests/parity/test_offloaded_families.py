"""Streamed weights and contexts in host memory change no token of any family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.parity.families import RUN
from tests.parity.offloaded import Way, rough, run_oracle
from tests.parity.tiny_models import Oracle


@pytest.mark.parametrize("family", RUN)
def test_context_replayed_from_tokens_says_what_generate_says(
    family: str, oracle_of: Callable[[str], Oracle], words: Path, tmp_path: Path
) -> None:
    oracle = oracle_of(family)
    run = run_oracle(oracle, words, Way(recompute=0.3), rough(1), spill=tmp_path)
    assert run.said == oracle.expected
    assert max(run.ratios) > 0


@pytest.mark.parametrize("family", RUN)
def test_context_projected_from_activations_says_what_generate_says(
    family: str, oracle_of: Callable[[str], Oracle], words: Path, tmp_path: Path
) -> None:
    oracle = oracle_of(family)
    way = Way(recompute=0.7, form="activations", resident=(1,), disk=(0,))
    run = run_oracle(oracle, words, way, rough(2), spill=tmp_path)
    assert run.said == oracle.expected
    assert max(run.ratios) > 0


@pytest.mark.parametrize("policy", ["static", "sync"])
@pytest.mark.parametrize("family", RUN)
def test_the_baselines_say_what_generate_says(
    policy: str, family: str, oracle_of: Callable[[str], Oracle], words: Path, tmp_path: Path
) -> None:
    oracle = oracle_of(family)
    way = Way(policy, batches=2, batch_size=4)
    run = run_oracle(oracle, words, way, rough(3), spill=tmp_path)
    assert run.said == oracle.expected
    assert not any(run.ratios)
