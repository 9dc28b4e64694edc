"""Which of the input's columns make the prompt and the id, by what the job says or by name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from tightrun.io.input_types import InputError
from tightrun.io.job_sections import InputSpec, OutputSpec

if TYPE_CHECKING:
    from tightrun.io.template import PromptTemplate

ID_COLUMNS = ("custom_id", "id", "uid")
CHAT_COLUMNS = ("messages", "conversations")
TEXT_COLUMNS = ("prompt", "text", "question", "instruction")
SAMPLING_COLUMN = "sampling_params"
# What an `instruction` is about, in the data sets that have one.
INSTRUCTION, INSTRUCTION_INPUT = "instruction", "input"


@dataclass(frozen=True, slots=True)
class PromptColumns:
    """The columns a prompt is made of; for a template, the template instead."""

    form: Literal["text", "chat", "template"]
    columns: tuple[str, ...]
    template: PromptTemplate | None = None


@dataclass(frozen=True, slots=True)
class IdColumns:
    """The columns to look for an id in, first to last; whether a row must have one."""

    columns: tuple[str, ...]
    required: bool


def choose_prompt(spec: InputSpec, names: Collection[str]) -> PromptColumns:
    """The prompt's columns among `names`, all columns of the input.

    Raises InputError if a named column is not there, or none or several could be the prompt.
    """
    if spec.template is not None:
        template = _compiled(spec.template)
        for name in sorted(template.names - template.optional):
            _require(name, names, "input.template")
        return PromptColumns("template", tuple(sorted(template.names)), template)
    if spec.prompt is not None:
        _require(spec.prompt, names, "input.prompt")
        return PromptColumns("text", (spec.prompt,))
    if spec.messages is not None:
        _require(spec.messages, names, "input.messages")
        return PromptColumns("chat", (spec.messages,))
    chosen = _by_name(names)
    if chosen.form == "chat" and spec.chat is False:
        raise InputError(
            f"the column {chosen.columns[0]!r} holds chats, which need the chat template that "
            "input.chat: false switches off; set input.prompt to a text column, or remove it"
        )
    return chosen


def choose_id(spec: InputSpec, names: Collection[str]) -> IdColumns:
    """The id's columns; raises InputError if the one the job names is not there."""
    if spec.id is not None:
        _require(spec.id, names, "input.id")
    return id_columns(spec)


def id_columns(spec: InputSpec) -> IdColumns:
    """The id's columns, before it is known which columns there are."""
    return IdColumns(ID_COLUMNS if spec.id is None else (spec.id,), required=spec.id is not None)


def keeps(spec: OutputSpec, name: str) -> bool:
    """Whether an input column of that name goes to the output; OpenAI lines have room for none."""
    if spec.format == "openai-batch" or spec.keep_columns == "none":
        return False
    return spec.keep_columns == "all" or name in spec.keep_columns


def choose_kept(spec: OutputSpec, names: Collection[str]) -> tuple[str, ...]:
    """The columns of `names` that go to the output, in the input's order.

    Raises InputError if a column that the job wants to keep is not there.
    """
    if isinstance(spec.keep_columns, tuple):
        for name in spec.keep_columns:
            _require(name, names, "output.keep_columns")
    return tuple(name for name in names if keeps(spec, name))


def template_names(spec: InputSpec) -> frozenset[str] | None:
    """The columns that the template reads, None without one. Raises InputError."""
    return None if spec.template is None else _compiled(spec.template).names


def _compiled(source: str) -> PromptTemplate:
    # Jinja takes a tenth of a second to import.
    from tightrun.io.template import PromptTemplate

    return PromptTemplate(source)


def columns_to_scan(spec: InputSpec, names: Collection[str]) -> tuple[str, ...]:
    """Of one table's columns, those whose text may be the prompt: what the scan measures."""
    of_template = template_names(spec)
    if of_template is not None:
        wanted = of_template
    elif spec.prompt is not None or spec.messages is not None:
        wanted = frozenset([spec.prompt or spec.messages or ""])
    else:
        wanted = frozenset((*CHAT_COLUMNS, *TEXT_COLUMNS))
        wanted |= {INSTRUCTION_INPUT} if INSTRUCTION in names else set()
    return tuple(name for name in names if name in wanted)


def did_you_mean(name: str, names: Collection[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or all of them."""
    near = get_close_matches(str(name), names, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    known = [*map(str, names)]
    rest = f" and {len(known) - 20} more" if len(known) > 20 else ""
    return f"; there are {', '.join(known[:20])}{rest}" if known else "; there are none"


def _by_name(names: Collection[str]) -> PromptColumns:
    found = [name for name in (*CHAT_COLUMNS, *TEXT_COLUMNS) if name in names]
    if len(found) > 1:
        chat = [name for name in found if name in CHAT_COLUMNS]
        word = f"input.messages: {chat[0]}" if chat else f"input.prompt: {found[0]}"
        raise InputError(
            f"the columns {', '.join(found)} could each be the prompt; choose one, as in {word}"
        )
    if not found:
        known = ", ".join((*CHAT_COLUMNS, *TEXT_COLUMNS))
        raise InputError(
            f"no column is the prompt by its name ({known}); set input.prompt, input.messages or "
            f"input.template{did_you_mean('', names)}"
        )
    if found[0] in CHAT_COLUMNS:
        return PromptColumns("chat", (found[0],))
    has_input = found[0] == INSTRUCTION and INSTRUCTION_INPUT in names
    return PromptColumns("text", (INSTRUCTION, INSTRUCTION_INPUT) if has_input else (found[0],))


def _require(name: str, names: Collection[str], key: str) -> None:
    if name not in names:
        raise InputError(f"{key}: no column {name!r} in the input{did_you_mean(name, names)}")
