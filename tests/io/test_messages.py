"""Chats in the forms data sets have them."""

from __future__ import annotations

from typing import Any

import pytest

from tightrun.io.input_types import BadRowError
from tightrun.io.messages import read_messages


def failure(value: Any) -> tuple[str, str]:
    with pytest.raises(BadRowError) as caught:
        read_messages(value)
    return caught.value.code, str(caught.value)


def test_role_and_content_are_taken_as_they_are() -> None:
    chat = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Hi"}]
    assert read_messages(chat) == tuple(chat)


def test_from_and_value_become_role_and_content() -> None:
    speakers = ["system", "human", "gpt", "user", "assistant", "tool", "observation"]
    roles = ["system", "user", "assistant", "user", "assistant", "tool", "tool"]
    chat = read_messages([{"from": name, "value": "x"} for name in speakers])
    assert [message["role"] for message in chat] == roles
    assert chat[0] == {"role": "system", "content": "x"}


def test_a_chat_may_be_json_text() -> None:
    assert read_messages('[{"role": "user", "content": "Hi"}]') == (
        {"role": "user", "content": "Hi"},
    )


def test_text_parts_are_joined_by_lines() -> None:
    parts = [{"type": "text", "text": "one", "image_url": None}, {"type": "text", "text": "two"}]
    assert read_messages([{"role": "user", "content": parts}])[0]["content"] == "one\ntwo"


def test_fields_that_parquet_fills_with_nulls_are_left_out() -> None:
    message = {"role": "user", "content": "Hi", "name": None, "tool_calls": None, "from": None}
    assert read_messages([message]) == ({"role": "user", "content": "Hi"},)


def test_what_templates_read_is_kept_and_the_rest_is_not() -> None:
    message = {"role": "tool", "content": "4", "tool_call_id": "c1", "weight": 0.5}
    assert read_messages([message]) == ({"role": "tool", "content": "4", "tool_call_id": "c1"},)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("not json", "not JSON"),
        ({"role": "user"}, "must be a list of objects, not an object"),
        ([], "empty"),
        (["hi"], "message 0 must be an object"),
        ([{"content": "x"}], "message 0 has no role"),
        ([{"role": "boss", "content": "x"}], "the role “boss”; roles are system, developer, user"),
        ([{"role": ["user"], "content": "x"}], "the role “['user']”"),
        ([{"from": "nobody", "value": "x"}], "from “nobody”"),
        ([{"role": "user"}], "message 0 (user) has no content"),
        ([{"role": "user", "content": None}], "has no content"),
        ([{"from": "human", "content": "x"}], "has no value"),
        ([{"role": "user", "content": 3}], "message 0: content must be text, not a number"),
        ([{"role": "user", "content": [{"type": "text"}]}], "without its text"),
    ],
)
def test_a_malformed_chat_says_what_and_where(value: Any, said: str) -> None:
    code, message = failure(value)
    assert code == "bad_messages"
    assert said in message


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"content": [{"type": "image_url", "image_url": {}}]}, "of type “image_url”"),
        ({"content": ["text"]}, "a part that is a string"),
        ({"content": None, "tool_calls": [{"id": "1"}]}, "tool_calls"),
        ({"content": "x", "function_call": {"name": "f"}}, "function_call"),
    ],
)
def test_what_is_more_than_text_is_unsupported(message: dict[str, Any], said: str) -> None:
    code, why = failure([{"role": "assistant", **message}])
    assert code == "unsupported"
    assert said in why
