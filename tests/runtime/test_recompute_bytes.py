"""What is computed again neither comes back over the link nor goes out: counted to the byte."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from tests.parity.families import RUN
from tests.parity.offloaded import BLOCK, Way, loaded_engine
from tests.parity.tiny_models import as_text, save_tiny
from tests.runtime.engines import answers, ask
from tightrun.core import StepRecord

SEQUENCES = 10
PROMPT = 4 * BLOCK
NEW = BLOCK + 1
LAYERS, TOKEN_BYTES = 3, 2 * 2 * 16 * 4  # two heads of 16 elements, keys and values, float32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "llama", *RUN["llama"])


def passes(model: Path, words: Path, ratio: float, form: str = "tokens") -> list[StepRecord]:
    """Two batches of ten sequences of whole blocks, which all begin and end together."""
    way = Way(
        recompute=ratio,
        form=form,
        batches=2,
        batch_size=SEQUENCES,
        workspace=SEQUENCES * 6,
        staging_rows=SEQUENCES,
        prefill_tokens=SEQUENCES * PROMPT,
    )
    prompts = [[3 + (7 * row + 5 * i) % 190 for i in range(PROMPT)] for row in range(2 * SEQUENCES)]
    steps: list[StepRecord] = []
    with loaded_engine(model, words, way) as engine:
        rows = [ask(i, as_text(p), max_tokens=NEW, ignore_eos=True) for i, p in enumerate(prompts)]
        answers(engine, rows, steps)
    assert len(steps) == NEW
    return steps


@pytest.mark.parametrize("tenths", [3, 7, 10])
def test_bytes_in_and_out_fall_by_exactly_the_share_that_is_replayed(
    tenths: int, model: Path, word_tokenizer: Path
) -> None:
    whole = passes(model, word_tokenizer, 0.0)
    less = passes(model, word_tokenizer, tenths / 10)
    share = Fraction(tenths, 10)
    for before, after in zip(whole, less, strict=True):
        assert after.kv_bytes_out == (1 - share) * before.kv_bytes_out
        assert after.kv_bytes_in == (1 - share) * before.kv_bytes_in
    assert [step.recompute_ratio for step in less[1:]] == [float(share)] * (NEW - 1)


def test_without_recompute_every_new_token_goes_out_once_and_every_block_comes_back(
    model: Path, word_tokenizer: Path
) -> None:
    steps = passes(model, word_tokenizer, 0.0)
    each = 2 * SEQUENCES * LAYERS * TOKEN_BYTES
    assert [s.kv_bytes_out for s in steps] == [each * PROMPT] + [each] * (NEW - 1)
    held = [PROMPT + i for i in range(NEW - 1)]
    blocks = [0] + [-(-tokens // BLOCK) for tokens in held]
    assert [s.kv_bytes_in for s in steps] == [each * BLOCK * n for n in blocks]


def test_activations_move_their_own_bytes_in_place_of_keys_and_values(
    model: Path, word_tokenizer: Path
) -> None:
    steps = passes(model, word_tokenizer, 0.3, "activations")
    kv, state = TOKEN_BYTES, 64 * 4
    rows = 2 * SEQUENCES * LAYERS
    prefill = steps[0]
    assert prefill.kv_bytes_out == rows * PROMPT * (7 * kv + 3 * state) // 10
    assert steps[1].kv_bytes_in == rows * PROMPT * (7 * kv + 3 * state) // 10
