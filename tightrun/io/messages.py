"""The messages of a chat, in the forms data sets have them, brought to the one of OpenAI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from tightrun.core import row_words
from tightrun.io.input_types import BadRowError
from tightrun.io.jsonl import json_kind

ROLES = ("system", "developer", "user", "assistant", "tool")

# What the `from` of the older from/value form says, and the role it means.
_SPEAKERS = {
    **{role: role for role in ROLES},
    **{"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant"},
    **{"function": "tool", "function_response": "tool", "observation": "tool"},
}
# Beside role and content, what chat templates read.
_EXTRAS = ("name", "tool_call_id", "reasoning_content", "thinking")
_CALLS = ("tool_calls", "function_call")

Messages = tuple[Mapping[str, Any], ...]


def read_messages(value: Any) -> Messages:
    """The chat in `value`: a list of role/content or from/value objects, or JSON text of one.

    Raises BadRowError with `bad_messages`, or `unsupported` for images, tool calls and the like.
    """
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise _bad(f"the messages are text, but not JSON: {error}") from None
    if not isinstance(value, list):
        raise _bad(f"the messages must be a list of objects, not {json_kind(value)}")
    if not value:
        raise _bad("the list of messages is empty; a chat needs at least one")
    return tuple(_message(item, i) for i, item in enumerate(value))


def read_content(value: Any, where: str = "content") -> str:
    """Text, or the text parts of a list of parts, a line each."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(_part(part, where) for part in value)
    raise _bad(f"{where} must be text, not {json_kind(value)}")


def _message(item: Any, i: int) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        raise _bad(f"message {i} must be an object with role and content, not {json_kind(item)}")
    for key in _CALLS:
        if item.get(key):
            raise BadRowError("unsupported", f"message {i}: {key} in messages is not supported")
    spoken = item.get("role") is None and item.get("from") is not None
    content_key = "value" if spoken else "content"
    role = _speaker(item["from"], i) if spoken else _role(item.get("role"), i)
    if item.get(content_key) is None:
        raise _bad(f"message {i} ({role}) has no {content_key}")
    message: dict[str, Any] = {"role": role}
    message["content"] = read_content(item[content_key], f"message {i}: {content_key}")
    message.update({key: item[key] for key in _EXTRAS if item.get(key) is not None})
    return message


def _role(role: Any, i: int) -> str:
    if isinstance(role, str) and role in ROLES:
        return role
    if role is None:
        raise _bad(f"message {i} has no role; roles are {', '.join(ROLES)}")
    raise _bad(f"message {i} has the role {row_words(role, 40)}; roles are {', '.join(ROLES)}")


def _speaker(speaker: Any, i: int) -> str:
    role = _SPEAKERS.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise _bad(
            f"message {i} is from {row_words(speaker, 40)}; known are {', '.join(_SPEAKERS)}"
        )
    return role


def _part(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind not in ("text", "input_text", "output_text"):
        what = f"of type {row_words(kind, 40)}" if kind else f"that is {json_kind(part)}"
        raise BadRowError("unsupported", f"{where} has a part {what}; only text can be read")
    if not isinstance(part.get("text"), str):
        raise _bad(f"{where} has a text part without its text")
    return str(part["text"])


def _bad(why: str) -> BadRowError:
    return BadRowError("bad_messages", why)
