"""When a sequence is done: end tokens, stop strings, length."""

from __future__ import annotations

from tightrun.core import TokenLogprob
from tightrun.runtime.sequence import Sequence
from tightrun.runtime.tokenizer import Tokenizer, find_stop

TokenScores = tuple[float, list[tuple[int, float]]]


def append_token(
    sequence: Sequence,
    token: int,
    scores: TokenScores | None,
    ends: frozenset[int],
    tokenizer: Tokenizer,
) -> None:
    """Give the sequence its next token and, if that ends it, a finish reason."""
    sequence.tokens.append(token)
    if scores is not None:
        if sequence.logprobs is None:
            sequence.logprobs = []
        logprob, top = scores
        sequence.logprobs.append(
            TokenLogprob(token, "", logprob, tuple((t, "", x) for t, x in top))
        )
    judge(sequence, ends, tokenizer)


def judge(sequence: Sequence, ends: frozenset[int], tokenizer: Tokenizer) -> None:
    """Give the sequence a finish reason if its last token ends it, or its room is used up."""
    p, token = sequence.sampling, sequence.tokens[-1]
    written = sequence.output_tokens
    if written >= p.min_tokens:
        if token in p.stop_token_ids:
            sequence.finish_reason, sequence.stop_reason = "stop", str(token)
            return
        if token in ends and not p.ignore_eos:
            sequence.finish_reason = "stop"
            return
        if p.stop and (found := find_stop(tokenizer, sequence.output, p.stop, p.min_tokens)):
            sequence.finish_reason = "stop"
            sequence.text, sequence.stop_reason = found
            return
    if written >= sequence.room:
        sequence.finish_reason = "length"
