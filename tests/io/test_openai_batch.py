"""OpenAI batch lines as requests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.io.input_jobs import job_over
from tightrun.core import Request
from tightrun.io.input_types import BadRowError
from tightrun.io.openai_batch import BatchLineReader, looks_like_batch, other_models

CHAT = [{"role": "user", "content": "Hi"}]


def line(url: str = "/v1/chat/completions", **body: Any) -> dict[str, Any]:
    if "messages" not in body and "prompt" not in body:
        body["messages"] = CHAT
    return {"custom_id": "a", "method": "POST", "url": url, "body": body}


def request(row: dict[str, Any]) -> Request:
    reader = BatchLineReader(job_over("x.jsonl", sampling={"n": 2, "max_tokens": 9, "seed": 5}))
    return reader.request(row, 3, reader.id_of(row))


def failure(row: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(BadRowError) as caught:
        request(row)
    return caught.value.code, str(caught.value)


def test_a_chat_line_is_a_request_with_messages() -> None:
    made = request(line())
    assert (made.row_index, made.id, made.prompt, made.raw) == (3, "a", tuple(CHAT), False)


@pytest.mark.parametrize("prompt", ["Once", ["Once"]])
def test_a_completions_line_is_a_request_with_raw_text(prompt: Any) -> None:
    made = request(line("/v1/completions", prompt=prompt))
    assert (made.prompt, made.raw) == ("Once", True)


def test_what_the_body_leaves_out_is_the_jobs() -> None:
    sampling = request(line(temperature=None)).sampling
    assert (sampling.max_tokens, sampling.seed, sampling.n) == (9, 5, 2)


def test_sampling_fields_are_taken_over() -> None:
    fields: dict[str, Any] = {
        "temperature": 0.7,
        "top_p": 0.9,
        "n": 1,
        "seed": 1,
        "presence_penalty": 0.1,
    }
    more: dict[str, Any] = {
        "frequency_penalty": 0.2,
        "top_k": 4,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
    }
    sampling = request(line(**fields, **more, stop=["a", "b"])).sampling
    assert all(getattr(sampling, key) == value for key, value in (fields | more).items())
    assert sampling.stop == ("a", "b")


def test_the_newer_name_of_the_token_limit_wins() -> None:
    assert request(line(max_completion_tokens=4, max_tokens=8)).sampling.max_tokens == 4
    assert request(line(max_tokens=8)).sampling.max_tokens == 8


def test_one_stop_string_need_not_be_a_list() -> None:
    assert request(line(stop="END")).sampling.stop == ("END",)


def test_a_top_k_of_minus_one_is_off() -> None:
    assert request(line(top_k=-1)).sampling.top_k == 0


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 5}, 5),
    ],
)
def test_log_probabilities_of_a_chat_are_a_flag_and_a_count(
    body: dict[str, Any], expected: int | None
) -> None:
    assert request(line(**body)).sampling.logprobs == expected


def test_log_probabilities_of_a_completion_are_a_count() -> None:
    assert request(line("/v1/completions", prompt="x", logprobs=2)).sampling.logprobs == 2


@pytest.mark.parametrize(
    "body",
    [
        {"user": "me", "metadata": {"a": "b"}, "store": True, "model": "gpt"},
        {"stream": False, "tools": [], "tool_choice": "none", "logit_bias": {}},
        {"response_format": {"type": "text"}},
        {"tools": None, "stream": None},
    ],
)
def test_fields_that_change_nothing_are_ignored(body: dict[str, Any]) -> None:
    assert request(line(**body)) == request(line())


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        (line(stream=True), "unsupported", "stream"),
        (line(tools=[{"type": "function"}]), "unsupported", "body.tools is not supported"),
        (line(response_format={"type": "json_object"}), "unsupported", "response_format"),
        (line(logit_bias={"5": 1}), "unsupported", "logit_bias"),
        (line(functions=[{}]), "unsupported", "functions"),
        (line(reasoning_effort="low"), "unsupported", "reasoning_effort"),
        (line(messages=CHAT, prompt="x"), "unsupported", "body.prompt is no field of this url"),
        (line("/v1/embeddings"), "unsupported", "/v1/embeddings"),
        (line() | {"method": "GET"}, "unsupported", "method must be POST"),
        (line("/v1/completions", prompt=[1, 2]), "unsupported", "token ids"),
        (line("/v1/completions", prompt=[[1, 2]]), "unsupported", "token ids"),
        (line("/v1/completions", prompt=["a", "b"]), "unsupported", "several texts"),
        (line("/v1/completions", prompt=""), "bad_row", "body.prompt is empty"),
        (line("/v1/completions", prompt=[]), "bad_row", "body.prompt must be text"),
        (line("/v1/completions", prompt=None), "missing_column", "no prompt"),
        (line(messages=None), "missing_column", "no messages"),
        (line(messages=[{"role": "x", "content": ""}]), "bad_messages", "the role “x”"),
        (line() | {"body": "text"}, "bad_row", "body must be an object"),
        (line() | {"custom_id": None}, "bad_row", "no custom_id"),
        ({"url": "/v1/completions", "body": {}}, "bad_row", "no custom_id"),
        (line(n=3), "bad_sampling", "n: 3 samples"),
        (line(temperature="hot"), "bad_sampling", "temperature"),
        (line(logprobs=3), "bad_sampling", "logprobs must be true or false"),
        (line(top_logprobs=3), "bad_sampling", "needs logprobs: true"),
        (line(logprobs=True, top_logprobs=21), "bad_sampling", "from 0 to 20"),
    ],
)
def test_what_cannot_be_done_fails_its_row_alone(row: dict[str, Any], code: str, said: str) -> None:
    assert failure(row)[0] == code
    assert said in failure(row)[1]


def test_a_line_needs_all_its_keys_to_look_like_a_batch() -> None:
    assert looks_like_batch(line())
    assert not looks_like_batch({"custom_id": "a", "url": "u", "body": {}})
    assert not looks_like_batch(line() | {"body": "the text of a web page"})


def test_another_model_is_worth_one_warning() -> None:
    assert other_models(["Qwen/Qwen3-8B"], "Qwen/Qwen3-8B") is None
    assert other_models(["Qwen/Qwen3-8B"], "/models/Qwen/Qwen3-8B") is None
    warning = other_models(["gpt-4o", "gpt-5"], "Qwen/Qwen3-8B")
    assert (
        warning == "the lines name the model gpt-4o, gpt-5; all rows are answered by Qwen/Qwen3-8B"
    )
