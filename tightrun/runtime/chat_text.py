"""A model's chat template, rendered as transformers would, but within bounds: it is not ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from tightrun.core import row_words
from tightrun.sandbox import DOES_NOT_COMPILE, BoundedSandbox, TooMuchError

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")

Messages = Sequence[Mapping[str, Any]]


class ChatText:
    """A chat template with the special tokens it may use.

    `tokens` may be a tokenizer's whole config. Raises ValueError if it does not compile.
    """

    def __init__(self, template: str, tokens: Mapping[str, Any]) -> None:
        environment = BoundedSandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        if not isinstance(template, str):
            raise ValueError("the chat template is no text")
        try:
            self._template = environment.from_string(template)
        except DOES_NOT_COMPILE as error:
            raise ValueError(f"the chat template does not compile: {error}") from error
        self._environment = environment
        self._tokens = {
            name: token for name in SPECIAL_TOKENS if (token := _token(tokens.get(name)))
        }

    def render(self, messages: Messages) -> str:
        """The text of a chat, up to where the model begins. Raises ValueError if it is refused."""
        try:
            values = {"messages": list(messages), "tools": None, "documents": None}
            return self._environment.render(
                self._template, {**values, "add_generation_prompt": True, **self._tokens}
            )
        except TooMuchError as error:
            raise ValueError(f"the chat template {error}") from error
        except Exception as error:  # the row's values meet the model's expressions: any type
            raise ValueError(f"the chat template refuses: {row_words(error)}") from error


def template_in(config: Mapping[str, Any]) -> str | None:
    """The chat template that stands in a tokenizer's config; of several the one named default."""
    found = config.get("chat_template")
    if isinstance(found, list):
        named = [each for each in found if isinstance(each, Mapping)]
        found = next((x.get("template") for x in named if x.get("name") == "default"), None)
    return found if isinstance(found, str) else None


class _Generation(Extension):
    """`{% generation %}` marks what a model wrote in training; here it is only text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body)


def _token(value: Any) -> str | None:
    content = value.get("content") if isinstance(value, Mapping) else value
    return content if isinstance(content, str) else None


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja's own escapes what HTML needs.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
