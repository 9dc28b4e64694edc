"""OpenAI batch lines: chat and completions, refused and never executed, as the API has them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.io.finished_rows import bad_row, good_row
from tightrun.core import Completion, Request, Sample, TokenLogprob
from tightrun.io.input_types import InputChunk
from tightrun.io.openai_out import CHAT_URL, COMPLETIONS_URL, OpenAiFormat, response_line
from tightrun.io.row_record import Finished

TOKENS = (
    TokenLogprob(5, "He", -0.5, ((5, "He", -0.5), (6, "Hi", -1.5))),
    TokenLogprob(7, "llo", -0.25, ()),
)


def line_of(row: Completion, url: str | None = CHAT_URL, fingerprint: str = "f") -> dict[str, Any]:
    return response_line(Finished(row, 1_700_000_000), url, "org/model", fingerprint)


def test_a_chat_row_is_a_chat_completion() -> None:
    line = line_of(good_row(3, "Hello"))
    key = line["id"].removeprefix("batch_req_")
    assert line == {
        "id": f"batch_req_{key}",
        "custom_id": "id-3",
        "response": {
            "status_code": 200,
            "request_id": f"req_{key}",
            "body": {
                "id": f"chatcmpl-{key}",
                "object": "chat.completion",
                "created": 1_700_000_000,
                "model": "org/model",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "Hello"},
                        "finish_reason": "stop",
                        "logprobs": None,
                    }
                ],
                "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
            },
        },
        "error": None,
    }


def test_a_completions_row_is_a_text_completion() -> None:
    body = line_of(good_row(3, "Hello"), COMPLETIONS_URL)["response"]["body"]
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert body["choices"] == [
        {"index": 0, "text": "Hello", "finish_reason": "stop", "logprobs": None}
    ]


def test_every_sample_is_a_choice_and_counts_as_output() -> None:
    body = line_of(good_row(0, n=2))["response"]["body"]
    contents = [(choice["index"], choice["message"]["content"]) for choice in body["choices"]]
    assert contents == [(0, "output 0.0"), (1, "output 0.1")]
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 7, "total_tokens": 14}


def test_chat_logprobs_have_the_shape_of_the_chat_api() -> None:
    choice = line_of(good_row(0, "Hello", logprobs=TOKENS))["response"]["body"]["choices"][0]
    assert choice["logprobs"] == {
        "content": [
            {
                "token": "He",
                "logprob": -0.5,
                "bytes": [72, 101],
                "top_logprobs": [
                    {"token": "He", "logprob": -0.5, "bytes": [72, 101]},
                    {"token": "Hi", "logprob": -1.5, "bytes": [72, 105]},
                ],
            },
            {"token": "llo", "logprob": -0.25, "bytes": [108, 108, 111], "top_logprobs": []},
        ],
        "refusal": None,
    }


def test_part_of_a_character_has_no_known_bytes() -> None:
    token = (TokenLogprob(5, "\N{REPLACEMENT CHARACTER}", -0.5),)
    choice = line_of(good_row(0, logprobs=token))["response"]["body"]["choices"][0]
    assert choice["logprobs"]["content"][0]["bytes"] is None


def test_completions_logprobs_have_the_shape_of_the_completions_api() -> None:
    row = good_row(0, "Hello", logprobs=TOKENS)
    choice = line_of(row, COMPLETIONS_URL)["response"]["body"]["choices"][0]
    assert choice["logprobs"] == {
        "tokens": ["He", "llo"],
        "token_logprobs": [-0.5, -0.25],
        "top_logprobs": [{"He": -0.5, "Hi": -1.5}, {"llo": -0.25}],
        "text_offset": [0, 2],
    }


@pytest.mark.parametrize("code", ["context_length", "bad_sampling", "bad_messages", "unsupported"])
def test_a_row_the_engine_refused_has_a_response_with_status_400(code: str) -> None:
    line = line_of(bad_row(1, code))
    assert line["error"] is None
    assert line["response"]["status_code"] == 400
    assert line["response"]["body"] == {
        "error": {
            "message": "row 1 is bad",
            "type": "invalid_request_error",
            "param": None,
            "code": code,
        }
    }


@pytest.mark.parametrize("code", ["bad_row", "oom", "internal"])
def test_a_row_that_was_never_answered_has_no_response(code: str) -> None:
    line = line_of(bad_row(1, code), url=None)
    assert line["response"] is None
    assert line["error"] == {"code": code, "message": "row 1 is bad"}
    assert line["custom_id"] == "id-1"


def test_ids_are_the_same_for_a_row_and_differ_between_rows_attempts_and_jobs() -> None:
    again = Completion(1, "id-1", (Sample("x", "stop"),), attempt=1)
    rows = [good_row(1), good_row(2), again]
    ids = [line_of(row)["id"] for row in rows] + [line_of(rows[0], fingerprint="g")["id"]]
    assert len(set(ids)) == 4
    assert line_of(good_row(1))["id"] == ids[0]


def chunk_of(items: list[Request | Completion], columns: pa.Table) -> InputChunk:
    return InputChunk(0, "in.jsonl", tuple(items), columns, 100)


def test_the_url_of_a_batch_line_is_kept() -> None:
    urls = [CHAT_URL, COMPLETIONS_URL, None]
    items: list[Request | Completion] = [Request(0, "a", ()), Request(1, "b", "p"), bad_row(2)]
    spooled = OpenAiFormat("m").spool(chunk_of(items, pa.table({"url": urls})))
    assert spooled.to_pydict() == {"url": urls}


def test_rows_from_elsewhere_are_chat_unless_their_prompt_is_raw() -> None:
    items: list[Request | Completion] = [
        Request(0, "a", "p"),
        Request(1, "b", "p", raw=True),
        bad_row(2),
    ]
    spooled = OpenAiFormat("m").spool(chunk_of(items, pa.table({"url": [1, 2, 3]})))
    assert spooled.to_pydict() == {"url": [CHAT_URL, COMPLETIONS_URL, CHAT_URL]}
