"""Sequences without an engine, and a tokenizer of words and letters without files."""

from __future__ import annotations

from typing import Any

from tightrun.core import Request, SamplingParams
from tightrun.runtime.sequence import Sequence
from tightrun.runtime.tokenizer import Tokenizer


class Letters(Tokenizer):
    """Token i is the character i; a prompt is its characters."""

    def __init__(self) -> None:
        pass  # nothing to load

    def encode(self, request: Request) -> list[int]:
        assert isinstance(request.prompt, str)
        return [ord(letter) for letter in request.prompt]

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))

    def token_text(self, token: int) -> str:
        return chr(token)


class Utf8(Letters):
    """Token i is the byte i; half a character decodes to the replacement character."""

    def encode(self, request: Request) -> list[int]:
        assert isinstance(request.prompt, str)
        return list(request.prompt.encode())

    def decode(self, tokens: list[int]) -> str:
        return bytes(tokens).decode(errors="replace")


def request(row: int = 0, prompt: str = "", **sampling: Any) -> Request:
    return Request(row, f"r{row}", prompt, SamplingParams(**sampling))


def sequence(
    prompt: list[int], *, row: int = 0, sample: int = 0, room: int = 8, **sampling: Any
) -> Sequence:
    """A sequence that waits to be started."""
    return Sequence(request(row, **sampling), sample, list(prompt), len(prompt), room)


def finished(
    output: str, *, row: int = 0, sample: int = 0, reason: str = "length", **sampling: Any
) -> Sequence:
    """A sequence of `Letters` whose output is done."""
    done = sequence([ord("p")], row=row, sample=sample, **sampling)
    done.tokens.extend(ord(letter) for letter in output)
    done.finish_reason = reason
    return done
