"""Output that is not finished: handed out while a run goes, taken up again by a later one."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator

from tightrun.core import Written
from tightrun.runtime.finishing import judge
from tightrun.runtime.sequence import Sequence
from tightrun.runtime.tokenizer import Tokenizer

# (row_index, sample, prompt) -> how many of its tokens are known already.
Known = Callable[[int, int, int], int]


def prompt_check(prompt: array[int]) -> int:
    """What tells a prompt: the same tokens have the same."""
    return zlib.crc32(prompt)


def go_on(sequence: Sequence, written: Written, ends: frozenset[int], tokenizer: Tokenizer) -> None:
    """Give a new sequence the tokens that an earlier run drew, and a finish reason if they end it.

    The draw depends on the position alone, so what follows is what would have followed then.
    Tokens that followed another prompt are left out: the row was changed, or is cut elsewhere.
    """
    if written.prompt != sequence.prompt_check or not len(written.tokens):
        return
    sequence.tokens.extend(written.tokens)
    if sequence.sampling.logprobs is not None:
        sequence.logprobs = list(written.logprobs or ())
        assert len(sequence.logprobs) == sequence.output_tokens
    judge(sequence, ends, tokenizer)


def drawn_since(known: Known, sequences: Iterable[Sequence]) -> Iterator[Written]:
    """What each sequence has drawn beyond what is known of it.

    May be called while another thread appends: a token counts when its log-probability is there.
    """
    for sequence in sequences:
        row, sample, check = sequence.request.row_index, sequence.sample, sequence.prompt_check
        first = known(row, sample, check)
        tokens = sequence.tokens[sequence.prompt_tokens + first :]
        logprobs = None
        if sequence.sampling.logprobs is not None:
            logprobs = tuple((sequence.logprobs or [])[first : first + len(tokens)])
            tokens = tokens[: len(logprobs)]
        if len(tokens):
            yield Written(row, sample, check, tokens, first, logprobs)
