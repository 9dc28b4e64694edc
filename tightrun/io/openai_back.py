"""Lines of an OpenAI batch output, read back: all that is needed to write the same line again.

What such a line has no word for (stop strings, seeds, token ids, tokens of each sample) is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tightrun.core import Completion, RowError, Sample, TokenLogprob
from tightrun.io.row_record import Finished

_UNKNOWN_TOKEN = -1

Body = Mapping[str, Any]


def row_of_line(line: Mapping[str, Any], row_index: int) -> Finished:
    """The finished row that a line tells of."""
    response, error = line["response"], line["error"]
    body = response["body"] if response else {}
    refusal = error or body.get("error")
    if refusal:
        row = Completion(
            row_index, line["custom_id"], error=RowError(refusal["code"], refusal["message"])
        )
        return Finished(row, 0)
    usage = body["usage"]
    samples = [_sample(choice) for choice in body["choices"]]
    # Only the sum of their tokens is known: the first one has it.
    first = samples[0]
    samples[0] = Sample(
        first.text,
        first.finish_reason,
        completion_tokens=usage["completion_tokens"],
        logprobs=first.logprobs,
    )
    row = Completion(
        row_index, line["custom_id"], tuple(samples), prompt_tokens=usage["prompt_tokens"]
    )
    return Finished(row, body["created"])


def _sample(choice: Body) -> Sample:
    chat = "message" in choice
    text = choice["message"]["content"] if chat else choice["text"]
    told = choice["logprobs"]
    logprobs = None
    if told is not None:
        logprobs = tuple(map(_chat_token, told["content"])) if chat else _text_tokens(told)
    return Sample(text, choice["finish_reason"], logprobs=logprobs)


def _chat_token(token: Body) -> TokenLogprob:
    top = tuple((_UNKNOWN_TOKEN, t["token"], _number(t["logprob"])) for t in token["top_logprobs"])
    return TokenLogprob(_UNKNOWN_TOKEN, token["token"], _number(token["logprob"]), top)


def _text_tokens(told: Body) -> tuple[TokenLogprob, ...]:
    parts = zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True)
    return tuple(
        TokenLogprob(
            _UNKNOWN_TOKEN,
            text,
            _number(logprob),
            tuple((_UNKNOWN_TOKEN, name, _number(value)) for name, value in top.items()),
        )
        for text, logprob, top in parts
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
