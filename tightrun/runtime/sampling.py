"""Tokens out of logits: penalties, temperature, top-k, top-p, min-p, then Gumbel-max."""

from __future__ import annotations

from collections import Counter

import torch

from tightrun.core import SamplingParams
from tightrun.runtime.philox import gumbel, stream_key
from tightrun.runtime.sequence import Sequence

# Gumbel noise of 52 bits lies between -3.7 and 36.8: a score further behind can never win.
NOISE_RANGE = 41.0
NOISE_ROWS = 16
COLDEST = 1e-20


class Chosen:
    """What one pass drew: `tokens[i]`, and where asked the row's log-probabilities."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        # row -> (log-probability of the token, [(token, log-probability), ...] best first)
        self.logprobs: dict[int, tuple[float, list[tuple[int, float]]]] = {}


class Sampler:
    """Draws one token per row. `end_tokens` are the model's end-of-sequence tokens."""

    def __init__(self, end_tokens: frozenset[int]) -> None:
        self._end_tokens = end_tokens
        self._keys: dict[Sequence, tuple[int, int]] = {}

    def forget(self, sequence: Sequence) -> None:
        self._keys.pop(sequence, None)

    def choose(self, logits: torch.Tensor, sequences: list[Sequence]) -> Chosen:
        """One token for each row of logits `[rows, vocab]`."""
        logits = logits.detach()
        special = [i for i, s in enumerate(sequences) if self._is_special(s)]
        greedy = logits.argmax(-1)
        if special:
            rows = torch.tensor(special, device=logits.device)
            chosen = [sequences[i] for i in special]
            greedy[rows] = self._draw(logits[rows].float(), chosen)
        result = Chosen(greedy.tolist())
        wanting = [i for i, s in enumerate(sequences) if s.sampling.logprobs is not None]
        if wanting:
            self._note_logprobs(result, logits, sequences, wanting)
        return result

    def _is_special(self, sequence: Sequence) -> bool:
        """Whether the plain argmax is not the answer."""
        p = sequence.sampling
        return (
            p.temperature > 0
            or p.repetition_penalty != 1
            or p.presence_penalty != 0
            or p.frequency_penalty != 0
            or sequence.output_tokens < p.min_tokens
        )

    def _draw(self, logits: torch.Tensor, sequences: list[Sequence]) -> torch.Tensor:
        for row, sequence in zip(logits, sequences, strict=True):
            self._penalise(row, sequence)
        tokens = logits.argmax(-1)
        random = [i for i, s in enumerate(sequences) if s.sampling.temperature > 0]
        for at in range(0, len(random), NOISE_ROWS):
            part = random[at : at + NOISE_ROWS]
            rows = torch.tensor(part, device=logits.device)
            tokens[rows] = self._noisy(logits[rows], [sequences[i] for i in part])
        return tokens

    def _penalise(self, row: torch.Tensor, sequence: Sequence) -> None:
        p = sequence.sampling
        if p.repetition_penalty != 1:
            seen = torch.tensor(sorted(set(sequence.tokens)), device=row.device)
            score = row[seen]
            row[seen] = torch.where(
                score > 0, score / p.repetition_penalty, score * p.repetition_penalty
            )
        if (p.presence_penalty or p.frequency_penalty) and sequence.output_tokens:
            counts = Counter(sequence.output)
            seen = torch.tensor(list(counts), device=row.device)
            times = torch.tensor(list(counts.values()), device=row.device, dtype=row.dtype)
            row[seen] -= p.presence_penalty + p.frequency_penalty * times
        if sequence.output_tokens < p.min_tokens:
            ends = [*p.stop_token_ids, *(() if p.ignore_eos else self._end_tokens)]
            row[[t for t in ends if t < row.shape[0]]] = -torch.inf

    def _noisy(self, logits: torch.Tensor, sequences: list[Sequence]) -> torch.Tensor:
        """The argmax of filtered scores plus noise; noise is made only where it can matter."""
        params = [s.sampling for s in sequences]
        temperature = torch.tensor([p.temperature for p in params], device=logits.device)
        # Relative to the best, so that no temperature however small gives inf or 0 / 0.
        ahead = logits - logits.amax(-1, keepdim=True)
        scores = filter_scores(ahead / temperature.clamp_min(COLDEST)[:, None], params)
        row, token = (scores > -NOISE_RANGE).nonzero(as_tuple=True)
        keys = torch.tensor([self._key(s) for s in sequences], device=logits.device)
        position = torch.tensor([s.output_tokens for s in sequences], device=logits.device)
        noise = gumbel((keys[row, 0], keys[row, 1]), position[row], token)
        noisy = torch.full_like(scores, -torch.inf, dtype=torch.float64)
        noisy[row, token] = scores[row, token].double() + noise
        return noisy.argmax(-1)

    def _key(self, sequence: Sequence) -> tuple[int, int]:
        if sequence not in self._keys:
            request = sequence.request
            self._keys[sequence] = stream_key(request.sampling.seed, request.id, sequence.sample)
        return self._keys[sequence]

    def _note_logprobs(
        self, result: Chosen, logits: torch.Tensor, sequences: list[Sequence], wanting: list[int]
    ) -> None:
        for i in wanting:
            row = torch.log_softmax(logits[i].float(), -1)
            count = sequences[i].sampling.logprobs or 0
            top = torch.topk(row, min(count, row.shape[0]))
            pairs = list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
            result.logprobs[i] = (float(row[result.tokens[i]]), pairs)


def filter_scores(scores: torch.Tensor, params: list[SamplingParams]) -> torch.Tensor:
    """Apply top-k, top-p and min-p, in that order, to scores `[rows, vocab]` over temperature."""
    vocab = scores.shape[-1]
    if not any(0 < p.top_k < vocab or p.top_p < 1 or p.min_p > 0 for p in params):
        return scores
    ordered, index = scores.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(vocab, device=scores.device)
    k = torch.tensor([p.top_k if p.top_k > 0 else vocab for p in params], device=scores.device)
    ordered = ordered.masked_fill(rank >= k[:, None], -torch.inf)
    probability = torch.softmax(ordered, -1)
    before = probability.cumsum(-1) - probability
    # A token stays if those before it do not reach top_p yet: the first always stays.
    # Off is infinity, since rounded sums reach 1 before the last token.
    top_p = torch.tensor(
        [p.top_p if p.top_p < 1 else torch.inf for p in params], device=scores.device
    )
    ordered = ordered.masked_fill((before >= top_p[:, None]) & (rank > 0), -torch.inf)
    # The ratio to the likeliest token is the same before and after renormalising.
    min_p = torch.tensor([p.min_p for p in params], device=scores.device)
    ordered = ordered.masked_fill(ordered < ordered[:, :1] + min_p[:, None].log(), -torch.inf)
    return torch.full_like(scores, -torch.inf).scatter(-1, index, ordered)
