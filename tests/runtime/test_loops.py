"""Every loop does the same work: what overlaps and what is late changes no bit of any logit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.parity.families import RUN
from tests.parity.offloaded import Way, loaded_engine, rough
from tests.parity.tiny_models import as_text, ragged_prompts, save_tiny
from tests.runtime.engines import answers, ask
from tightrun.runtime.loading_offloaded import Shaken
from tightrun.runtime.sampling import Chosen, Sampler
from tightrun.runtime.sequence import Sequence

# (row, tokens before it) -> the logits of one draw.
Logits = dict[tuple[int, int], torch.Tensor]


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "mixtral"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / request.param
    return save_tiny(folder, *RUN[request.param])


def logits_of(
    model: Path,
    words: Path,
    way: Way,
    shaken: Shaken,
    patch: pytest.MonkeyPatch,
    spill: Path,
    *,
    poison: bool = True,
) -> Logits:
    """All logits of a small ragged job, by row and position."""
    noted: Logits = {}
    choose = Sampler.choose

    def note(sampler: Sampler, logits: torch.Tensor, sequences: list[Sequence]) -> Chosen:
        for row, sequence in zip(logits, sequences, strict=True):
            if sequence.request.id == "probe":
                continue
            noted[sequence.request.row_index, len(sequence.tokens)] = row.clone()
        return choose(sampler, logits, sequences)

    prompts = ragged_prompts(9, shared=20, longest=40)
    with patch.context() as patched:
        patched.setattr(Sampler, "choose", note)
        with loaded_engine(model, words, way, shaken, spill=spill, poison=poison) as engine:
            answers(engine, [ask(i, as_text(p), max_tokens=6) for i, p in enumerate(prompts)])
    assert len(noted) == 9 * 6
    return noted


def assert_same_bits(first: Logits, second: Logits) -> None:
    assert first.keys() == second.keys()
    for key, logits in first.items():
        assert torch.equal(logits, second[key]), f"row {key[0]} at {key[1]}"


@pytest.mark.parametrize(
    ("recompute", "form"), [(0.0, "tokens"), (0.6, "tokens"), (0.6, "activations")]
)
def test_the_overlapped_loop_agrees_with_the_one_in_order_bit_for_bit(
    recompute: float,
    form: str,
    model: Path,
    word_tokenizer: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def run(policy: str, shaken: Shaken, *, poison: bool = True) -> Logits:
        way = Way(policy, recompute, form, resident=(1,), disk=(2,), kv_blocks=10)
        return logits_of(model, word_tokenizer, way, shaken, monkeypatch, tmp_path, poison=poison)

    in_order = run("simple", Shaken())
    assert_same_bits(run("adaptive", rough(0)), in_order)
    # To poison a buffer is to wait for it: what is not waited for otherwise shows without.
    assert_same_bits(run("adaptive", rough(1, 0.03), poison=False), in_order)


@pytest.mark.parametrize("policy", ["static", "sync"])
def test_the_baselines_agree_with_the_loop_in_order_bit_for_bit(
    policy: str, model: Path, word_tokenizer: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(policy: str, shaken: Shaken) -> Logits:
        way = Way(policy, 0.0, resident=(0,), disk=(1,))
        return logits_of(model, word_tokenizer, way, shaken, monkeypatch, tmp_path)

    assert_same_bits(run(policy, rough(3)), run("simple", Shaken()))
