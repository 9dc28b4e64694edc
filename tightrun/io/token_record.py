"""Tokens of unfinished rows as the record of a journal, and back.

A record holds pieces: which sample of which row, from which position on, and its tokens; where they
are asked for, the log-probability of each and those of its alternatives. All of it in
little endian, which all machines that run this are.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self

from tightrun.core import TokenLogprob, Written

TOKENS = b"T"
_UNASKED = -1
# Row, sample, prompt, first position, tokens, alternatives of each token.
_ABOUT = struct.Struct("<qHIIIi")


@dataclass(slots=True)
class Piece:
    """Some consecutive tokens of a sample, 4 bytes each: what `Written` says, in as little memory.

    `alternatives` is their number for each token, -1 where no log-probabilities are asked for.
    `top_ids` and `top_scores` are those of all tokens, one token after the other.
    """

    row_index: int
    sample: int
    prompt: int
    first: int
    tokens: array[int]
    alternatives: int
    scores: array[float]
    top_ids: array[int]
    top_scores: array[float]

    @classmethod
    def of(cls, written: Written) -> Self:
        """The piece that says the same."""
        alternatives = _UNASKED
        logprobs = written.logprobs or ()
        if written.logprobs is not None:
            assert len(logprobs) == len(written.tokens)
            alternatives = len(logprobs[0].top) if logprobs else 0
        top = list(chain.from_iterable(token.top for token in logprobs))
        assert len(top) == len(logprobs) * max(alternatives, 0)
        return cls(
            written.row_index,
            written.sample,
            written.prompt,
            written.first,
            array("i", written.tokens),
            alternatives,
            array("f", [token.logprob for token in logprobs]),
            array("i", [token_id for token_id, _, _ in top]),
            array("f", [logprob for _, _, logprob in top]),
        )

    @property
    def stop(self) -> int:
        """The position after its last token."""
        return self.first + len(self.tokens)

    @property
    def nbytes(self) -> int:
        """The bytes it takes in a record."""
        return _ABOUT.size + 4 * sum(map(len, self._arrays()))

    def written(self) -> Written:
        """What it says."""
        logprobs = None
        if self.alternatives >= 0:
            each = self.alternatives
            top = [(i, "", s) for i, s in zip(self.top_ids, self.top_scores, strict=True)]
            logprobs = tuple(
                TokenLogprob(token, "", score, tuple(top[at * each : (at + 1) * each]))
                for at, (token, score) in enumerate(zip(self.tokens, self.scores, strict=True))
            )
        return Written(self.row_index, self.sample, self.prompt, self.tokens, self.first, logprobs)

    def follows(self, other: Piece) -> bool:
        """Whether it goes on where `other` ends."""
        return (
            self.first == other.stop
            and self.prompt == other.prompt
            and self.alternatives == other.alternatives
        )

    def add(self, other: Piece) -> None:
        """Takes in a piece that follows this one."""
        for mine, its in zip(self._arrays(), other._arrays(), strict=True):
            mine.extend(its)

    def encoded(self) -> bytes:
        """Its bytes in a record."""
        about = _ABOUT.pack(
            self.row_index,
            self.sample,
            self.prompt,
            self.first,
            len(self.tokens),
            self.alternatives,
        )
        return b"".join((about, *(values.tobytes() for values in self._arrays())))

    def _arrays(self) -> tuple[array[Any], ...]:
        return self.tokens, self.scores, self.top_ids, self.top_scores


def pieces_of(payload: bytes) -> Iterator[Piece]:
    """The pieces of a record."""
    at = 0
    while at < len(payload):
        row, sample, prompt, first, count, alternatives = _ABOUT.unpack_from(payload, at)
        at += _ABOUT.size
        scores = count if alternatives >= 0 else 0
        arrays: list[array[Any]] = []
        for kind, size in (
            ("i", count), ("f", scores), ("i", scores * alternatives), ("f", scores * alternatives),
        ):  # fmt: skip
            arrays.append(array(kind, payload[at : at + 4 * size]))
            at += 4 * size
        tokens, token_scores, top_ids, top_scores = arrays
        yield Piece(
            row, sample, prompt, first, tokens, alternatives, token_scores, top_ids, top_scores
        )


def in_records(pieces: Iterable[Piece], most_bytes: int) -> Iterator[bytes]:
    """Records of these pieces, in order; one is longer than that only if a piece is."""
    record: list[bytes] = []
    nbytes = 0
    for piece in pieces:
        if record and nbytes + piece.nbytes > most_bytes:
            yield b"".join(record)
            record, nbytes = [], 0
        record.append(piece.encoded())
        nbytes += len(record[-1])
    if record:
        yield b"".join(record)
