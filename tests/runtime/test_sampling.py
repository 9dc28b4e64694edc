"""Which token a row gets: greedy, drawn, filtered, penalised, held back from ending."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from tests.runtime.stand_ins import sequence
from tightrun.core import SamplingParams
from tightrun.runtime.philox import gumbel, stream_key
from tightrun.runtime.sampling import Sampler, filter_scores
from tightrun.runtime.sequence import Sequence

END = 1


def sampler() -> Sampler:
    return Sampler(frozenset({END}))


def choose(logits: list[float], one: Sequence) -> int:
    """The token of a single row."""
    [token] = sampler().choose(torch.tensor([logits]), [one]).tokens
    return token


def after(output: list[int], *, prompt: tuple[int, ...] = (1,), **sampling: Any) -> Sequence:
    """A sequence that has written `output`."""
    one = sequence(list(prompt), **sampling)
    one.tokens.extend(output)
    return one


# --- greedy ---------------------------------------------------------------------------------


def test_temperature_zero_takes_the_likeliest() -> None:
    assert choose([0.0, 1.0, 5.0, 2.0], after([])) == 2


def test_of_equals_the_first_is_taken() -> None:
    assert choose([0.0, 5.0, 5.0], after([9])) == 1


def test_sampling_leaves_the_logits_as_they_are() -> None:
    logits = torch.randn(3, 8)
    before = logits.clone()
    rows = [after([2], row=i, temperature=1, repetition_penalty=2, min_tokens=9) for i in range(3)]
    sampler().choose(logits, rows)
    assert torch.equal(logits, before)


# --- drawing --------------------------------------------------------------------------------

LOGITS = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5, -2.0, -2.5, -3.0, -3.5])


def draws(rows: list[Sequence], logits: torch.Tensor = LOGITS) -> list[int]:
    return sampler().choose(logits.expand(len(rows), -1).clone(), rows).tokens


def assert_follows(tokens: list[int], probability: torch.Tensor) -> None:
    """A chi-square test at 0.1 %, and nothing that has no probability."""
    counts = np.bincount(tokens, minlength=len(probability))
    possible = probability.numpy() > 0
    assert counts[~possible].sum() == 0
    expected = probability.double().numpy()[possible]
    result = chisquare(counts[possible], expected / expected.sum() * counts.sum())
    assert result.pvalue > 0.001


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1.0},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"temperature": 1.0, "top_k": 4},
        {"temperature": 1.0, "top_p": 0.7},
        {"temperature": 1.0, "min_p": 0.2},
        {"temperature": 2.0, "top_k": 8, "top_p": 0.9, "min_p": 0.1},
    ],
    ids=str,
)
def test_frequencies_over_requests_follow_the_filtered_softmax(sampling: dict[str, Any]) -> None:
    tokens = draws([after([], row=row, **sampling) for row in range(4000)])
    kept = keep(LOGITS.tolist(), SamplingParams(**sampling))
    scores = LOGITS / sampling["temperature"]
    allowed = torch.tensor([i in kept for i in range(len(LOGITS))])
    assert_follows(tokens, torch.softmax(scores.masked_fill(~allowed, -torch.inf), -1))


def test_frequencies_over_the_positions_of_one_output_follow_the_softmax() -> None:
    rows = [after([0] * written, temperature=1.0) for written in range(4000)]
    assert_follows(draws(rows), torch.softmax(LOGITS, -1))


def test_frequencies_over_the_samples_of_one_request_follow_the_softmax() -> None:
    rows = [after([], sample=sample, temperature=1.0) for sample in range(4000)]
    assert_follows(draws(rows), torch.softmax(LOGITS, -1))


def test_frequencies_over_seeds_follow_the_softmax() -> None:
    assert_follows(
        draws([after([], seed=seed, temperature=1.0) for seed in range(4000)]),
        torch.softmax(LOGITS, -1),
    )


def test_neighbouring_positions_are_independent() -> None:
    tokens = draws([after([0] * written, temperature=1.0) for written in range(4000)])
    likely = torch.tensor(tokens) == 0
    both = (likely[1:] & likely[:-1]).float().mean().item()
    assert both == pytest.approx(likely.float().mean().item() ** 2, abs=0.02)


def test_a_draw_is_the_argmax_of_scores_and_noise_over_the_whole_vocabulary() -> None:
    """Noise is computed only where it can win; that must change nothing."""
    generator = torch.Generator().manual_seed(1)
    rows = [after([0] * i, row=i, temperature=0.8) for i in range(40)]
    logits = 15 * torch.randn(40, 500, generator=generator)
    got = sampler().choose(logits, rows).tokens
    for i, one in enumerate(rows):
        key = torch.tensor(stream_key(0, one.request.id, 0))
        noise = gumbel((key[0], key[1]), torch.tensor(one.output_tokens), torch.arange(500))
        assert got[i] == int(((logits[i] / 0.8).double() + noise).argmax())


def mixed_rows() -> list[Sequence]:
    """Rows that ask for different things."""
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 3},
        {"temperature": 1.0, "top_p": 0.8},
        {"temperature": 1.5, "min_p": 0.05, "repetition_penalty": 1.3},
        {"presence_penalty": 0.5, "frequency_penalty": 0.5},
        {"temperature": 1.0, "min_tokens": 6},
    ]
    return [after([2] * (i % 5), row=i, seed=i % 3, **kinds[i % 7]) for i in range(35)]


def test_a_row_gets_the_same_token_alone_in_a_batch_and_in_another_order() -> None:
    logits = 3 * torch.randn(35, 200, generator=torch.Generator().manual_seed(2))
    rows = mixed_rows()
    together = sampler().choose(logits, rows).tokens
    alone = [sampler().choose(logits[i : i + 1], rows[i : i + 1]).tokens[0] for i in range(35)]
    order = torch.randperm(35, generator=torch.Generator().manual_seed(3)).tolist()
    shuffled = sampler().choose(logits[order], [rows[i] for i in order]).tokens
    assert alone == together
    assert shuffled == [together[i] for i in order]


def test_another_seed_or_sample_draws_other_tokens() -> None:
    def drawn(**who: Any) -> list[int]:
        return draws([after([0] * i, temperature=1.0, **who) for i in range(50)])

    assert drawn(seed=0) == drawn(seed=0)
    assert len({tuple(drawn(seed=s, sample=n)) for s in (0, 1) for n in (0, 1)}) == 4


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-300])
def test_a_temperature_near_zero_is_greedy_and_not_a_division_by_zero(temperature: float) -> None:
    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(4))
    rows = [after([], row=i, temperature=temperature) for i in range(20)]
    assert sampler().choose(logits, rows).tokens == logits.argmax(-1).tolist()


# --- filters --------------------------------------------------------------------------------


def keep(logits: list[float], p: SamplingParams, slack: float = 0.0) -> set[int]:
    """The tokens that stay, by the letter; `slack` widens or narrows where sums are near."""
    scores = [x / (p.temperature or 1.0) for x in logits]
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    if p.top_k:
        order = order[: p.top_k]
    weights = [math.exp(scores[i] - scores[order[0]]) for i in order]
    kept: set[int] = set()
    reached = 0.0
    for token, weight in zip(order, weights, strict=True):
        if kept and p.top_p < 1 and reached >= p.top_p + slack:
            break
        if weight >= p.min_p * (1 - slack):
            kept.add(token)
        reached += weight / sum(weights)
    return kept


@given(
    logits=st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=30),
    top_k=st.integers(0, 35),
    top_p=st.floats(0.01, 1.0),
    min_p=st.floats(0.0, 1.0),
)
def test_filters_keep_what_their_definitions_say(
    logits: list[float], top_k: int, top_p: float, min_p: float
) -> None:
    p = SamplingParams(temperature=1.0, top_k=top_k, top_p=top_p, min_p=min_p)
    scores = torch.tensor([logits])
    filtered = filter_scores(scores, [p])[0]
    got = set(torch.isfinite(filtered).nonzero().flatten().tolist())
    assert keep(logits, p, -1e-4) <= got <= keep(logits, p, 1e-4)
    assert torch.equal(filtered[list(got)], scores[0, list(got)])


def test_top_k_takes_k_of_equals() -> None:
    p = SamplingParams(top_k=2)
    filtered = filter_scores(torch.zeros(1, 5), [p])[0]
    assert torch.isfinite(filtered).tolist() == [True, True, False, False, False]


def test_the_likeliest_token_always_stays() -> None:
    p = SamplingParams(top_k=1, top_p=1e-9, min_p=1.0)
    filtered = filter_scores(torch.tensor([[0.0, 3.0, 2.9]]), [p])[0]
    assert torch.isfinite(filtered).tolist() == [False, True, False]


def test_a_row_without_filters_is_untouched_beside_one_with_filters() -> None:
    # The first probability rounds to 1, so that a running sum reaches 1 at once.
    scores = torch.tensor([[30.0, 0.0, -5.0], [1.0, 0.5, 0.0]])
    filtered = filter_scores(scores, [SamplingParams(), SamplingParams(top_k=1)])
    assert torch.equal(filtered[0], scores[0])
    assert torch.isfinite(filtered[1]).tolist() == [True, False, False]


# --- penalties, by hand -----------------------------------------------------------------------


def test_repetition_penalty_divides_positive_and_multiplies_negative_scores() -> None:
    repeated: dict[str, Any] = {"prompt": (0,), "repetition_penalty": 2.0}
    assert choose([2.0, -9.0, 1.1], after([], **repeated)) == 2  # 2 / 2 < 1.1
    assert choose([2.0, -9.0, 0.9], after([], **repeated)) == 0
    assert choose([-1.0, -9.0, -1.9], after([], **repeated)) == 2  # -1 * 2 < -1.9
    assert choose([-1.0, -9.0, -2.1], after([], **repeated)) == 0


def test_repetition_penalty_counts_prompt_and_output_once_each_token() -> None:
    assert choose([2.0, -9.0, 1.1], after([0, 0, 0], repetition_penalty=2.0)) == 2
    assert choose([2.0, -9.0, 0.9], after([0, 0, 0], prompt=(0,), repetition_penalty=2.0)) == 0


def test_presence_penalty_counts_the_output_only_and_once() -> None:
    assert choose([1.0, -9.0, 0.6], after([], prompt=(0,), presence_penalty=0.5)) == 0
    assert choose([1.0, -9.0, 0.6], after([0], presence_penalty=0.5)) == 2
    assert choose([1.0, -9.0, 0.4], after([0, 0, 0], presence_penalty=0.5)) == 0


def test_frequency_penalty_counts_every_time() -> None:
    assert choose([1.0, -9.0, 0.4], after([0], frequency_penalty=0.3)) == 0
    assert choose([1.0, -9.0, 0.6], after([0, 0], frequency_penalty=0.3)) == 2


def test_the_penalties_add_up() -> None:
    penalties: dict[str, Any] = {
        "presence_penalty": 0.25,
        "frequency_penalty": 0.5,
        "repetition_penalty": 2.0,
    }
    # 4 / 2 - 0.25 - 2 * 0.5 = 0.75
    assert choose([4.0, -9.0, 0.74], after([0, 0], **penalties)) == 0
    assert choose([4.0, -9.0, 0.76], after([0, 0], **penalties)) == 2


def test_penalties_come_before_the_temperature_and_the_filters() -> None:
    row = after([0], temperature=0.01, top_k=1, presence_penalty=1.0)
    assert choose([1.0, -9.0, 0.5], row) == 2


# --- not ending too early -------------------------------------------------------------------


def test_end_and_stop_tokens_wait_for_min_tokens() -> None:
    logits = [0.0, 9.0, 8.0, 1.0]
    waiting: dict[str, Any] = {"min_tokens": 2, "stop_token_ids": (2,)}
    assert choose(logits, after([0], **waiting)) == 3
    assert choose(logits, after([0, 0], **waiting)) == END


def test_an_end_token_that_is_ignored_may_come_before_min_tokens() -> None:
    assert choose([0.0, 9.0], after([], min_tokens=5, ignore_eos=True)) == END


def test_a_stop_token_beyond_the_vocabulary_does_no_harm() -> None:
    assert choose([0.0, 9.0, 8.0], after([], min_tokens=5, stop_token_ids=(5000,))) == 2


# --- log-probabilities ----------------------------------------------------------------------


def test_log_probabilities_are_of_the_unprocessed_logits() -> None:
    logits = torch.tensor([[4.0, 0.0, 3.0, 1.0]])
    one = after([0], temperature=0.01, top_k=1, presence_penalty=5.0, logprobs=3)
    chosen = sampler().choose(logits, [one])
    plain = torch.log_softmax(logits[0], -1)
    assert chosen.tokens == [2]
    own, top = chosen.logprobs[0]
    assert own == pytest.approx(float(plain[2]))
    assert [token for token, _ in top] == [0, 2, 3]
    assert [x for _, x in top] == pytest.approx([float(plain[i]) for i in (0, 2, 3)])


def test_zero_log_probabilities_are_the_chosen_token_alone() -> None:
    chosen = sampler().choose(torch.tensor([[0.0, 1.0]]), [after([], logprobs=0)])
    assert chosen.logprobs[0][1] == []


def test_only_rows_that_ask_get_log_probabilities() -> None:
    rows = [after([], row=0), after([], row=1, logprobs=2)]
    assert list(sampler().choose(torch.zeros(2, 4), rows).logprobs) == [1]


def test_more_alternatives_than_tokens_are_all_tokens() -> None:
    chosen = sampler().choose(torch.zeros(1, 3), [after([], logprobs=20)])
    assert len(chosen.logprobs[0][1]) == 3
