"""A shard as lines of an OpenAI batch output file.

A row that the engine refused has a response with status 400; one that was never executed, or
that broke while it was, has no response but an error of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from tightrun.core import Completion, Request, RowError, Sample, TokenLogprob
from tightrun.io.durable import DiskFile
from tightrun.io.input_types import InputChunk
from tightrun.io.row_record import Finished
from tightrun.io.shard import Piece, Stamp

CHAT_URL = "/v1/chat/completions"
COMPLETIONS_URL = "/v1/completions"
_URL = "url"
_NOT_EXECUTED = ("bad_row", "oom", "internal")
_UNKNOWN_BYTES = "\N{REPLACEMENT CHARACTER}"


class OpenAiFormat:
    """One response object a line; `model` is the name the lines say answered.

    The shape, chat or completions, is that of the request's `url`; rows from elsewhere are chat
    unless their prompt was raw text.
    """

    suffix = ".jsonl"
    spooled = pa.schema([(_URL, pa.string())])

    def __init__(self, model: str) -> None:
        self._model = model

    @property
    def columns(self) -> dict[str, str]:
        return {}

    def spool(self, chunk: InputChunk) -> pa.Table:
        if _URL in chunk.columns.schema.names and pa.types.is_string(chunk.columns[_URL].type):
            return chunk.columns.select([_URL])
        raw = [isinstance(item, Request) and item.raw for item in chunk.items]
        urls = [COMPLETIONS_URL if is_raw else CHAT_URL for is_raw in raw]
        return pa.table([pa.array(urls, pa.string())], schema=self.spooled)

    def write(
        self, pieces: Iterable[Piece], file: DiskFile, errors: DiskFile | None, stamp: Stamp
    ) -> None:
        for piece in pieces:
            urls = piece.kept.columns.column(_URL).to_pylist()
            for finished, url in zip(piece.finished, urls, strict=True):
                line = orjson.dumps(
                    response_line(finished, url, self._model, stamp.fingerprint),
                    option=orjson.OPT_APPEND_NEWLINE,
                )
                file.write(line)
                if errors is not None and finished.completion.error is not None:
                    errors.write(line)

    def is_whole(self, path: Path, stamp: Stamp) -> bool:  # noqa: ARG002
        # Lines say nothing of themselves: that the bytes are the ones written is all there is.
        return True


def response_line(
    finished: Finished, url: str | None, model: str, fingerprint: str
) -> dict[str, Any]:
    """One line of the output. Its ids are unique over jobs and the same for the same row."""
    row = finished.completion
    key = _key(row, fingerprint)
    line: dict[str, Any] = {"id": f"batch_req_{key}", "custom_id": row.id}
    if row.error is None:
        chat = url != COMPLETIONS_URL
        body = _body(finished, chat, model, f"{'chatcmpl' if chat else 'cmpl'}-{key}")
        response = {"status_code": 200, "request_id": f"req_{key}", "body": body}
        return {**line, "response": response, "error": None}
    if row.error.code in _NOT_EXECUTED:
        error = {"code": row.error.code, "message": row.error.message}
        return {**line, "response": None, "error": error}
    body = {"error": _refusal(row.error)}
    response = {"status_code": 400, "request_id": f"req_{key}", "body": body}
    return {**line, "response": response, "error": None}


def _key(row: Completion, fingerprint: str) -> str:
    text = f"{fingerprint}/{row.row_index}/{row.attempt}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _refusal(error: RowError) -> dict[str, Any]:
    kind = "invalid_request_error"
    return {"message": error.message, "type": kind, "param": None, "code": error.code}


def _body(finished: Finished, chat: bool, model: str, id_: str) -> dict[str, Any]:
    row = finished.completion
    output = sum(sample.completion_tokens for sample in row.samples)
    choice = _chat_choice if chat else _text_choice
    return {
        "id": id_,
        "object": "chat.completion" if chat else "text_completion",
        "created": finished.created_s,
        "model": model,
        "choices": [choice(index, sample) for index, sample in enumerate(row.samples)],
        "usage": {
            "prompt_tokens": row.prompt_tokens,
            "completion_tokens": output,
            "total_tokens": row.prompt_tokens + output,
        },
    }


def _chat_choice(index: int, sample: Sample) -> dict[str, Any]:
    logprobs = None
    if sample.logprobs is not None:
        content = [
            {
                **_chat_token(token.token, token.logprob),
                "top_logprobs": [_chat_token(text, logprob) for _, text, logprob in token.top],
            }
            for token in sample.logprobs
        ]
        logprobs = {"content": content, "refusal": None}
    return {
        "index": index,
        "message": {"role": "assistant", "content": sample.text},
        "finish_reason": sample.finish_reason,
        "logprobs": logprobs,
    }


def _chat_token(text: str, logprob: float) -> dict[str, Any]:
    # Part of a character has no text of its own, and with it the bytes are gone.
    known = None if _UNKNOWN_BYTES in text else list(text.encode())
    return {"token": text, "logprob": logprob, "bytes": known}


def _text_choice(index: int, sample: Sample) -> dict[str, Any]:
    return {
        "index": index,
        "text": sample.text,
        "finish_reason": sample.finish_reason,
        "logprobs": None if sample.logprobs is None else _text_logprobs(sample.logprobs),
    }


def _text_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    ends = list(accumulate((len(token.token) for token in tokens), initial=0))
    tops = [{text: logprob for _, text, logprob in token.top} for token in tokens]
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [
            {**top, token.token: token.logprob} for top, token in zip(tops, tokens, strict=True)
        ],
        "text_offset": ends[:-1],
    }
