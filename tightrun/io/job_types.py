"""The types of the job file's fields: what is accepted, how it prints, its JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from tightrun.io import quantities as q
from tightrun.io.job_paths import local_input, local_output, model_or_hub_id

_SIZE = r"^[0-9.]+ ?([KMGTP]i?)?B$"
_AMOUNT = r"^([0-9.]+ ?%|[0-9.]+ ?([KMGTP]i?)?B)$"
_RATE = r"^[0-9.]+ ?([kKMGTP]i?)?B(/s|ps)$"
_FLOP_RATE = r"^[0-9.]+ ?[KMGTP]?FLOPS?(/s)?$"
_DURATION = r"^([0-9.]+ ?(d|h|m|min|s) ?)+$|^([0-9]+-)?[0-9]+:[0-9]{2}:[0-9]{2}$"
_COUNT = r"^[0-9]+([_,][0-9]{3})*$"


class SectionForm:
    """The other forms a section may have.

    With a `shorthand`, one text stands for that key (`policy: sync`); with `may_be_empty`, a
    header without anything below it stands for all defaults.
    """

    def __init__(self, shorthand: str | None = None, *, may_be_empty: bool = False) -> None:
        self.shorthand = shorthand
        self.may_be_empty = may_be_empty

    def expand(self, value: object) -> object:
        if value is None and self.may_be_empty:
            return {}
        return {self.shorthand: value} if self.shorthand and isinstance(value, str) else value

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.expand, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        forms = [{"type": "string"}] if self.shorthand else []
        forms += [{"type": "null"}] if self.may_be_empty else []
        return {"anyOf": [handler(schema), *forms]}


def _number_or_text(pattern: str, *words: str, minimum: int = 0) -> WithJsonSchema:
    options: list[dict[str, Any]] = [
        {"type": "number", "minimum": minimum},
        {"type": "string", "pattern": pattern},
    ]
    return WithJsonSchema({"anyOf": [*options, *([{"enum": list(words)}] if words else [])]})


def _or_word(word: str, parse: Callable[[object], Any]) -> PlainValidator:
    """None for the word that leaves the choice to us (or lifts the limit), else parsed."""

    def read(value: object) -> Any:
        if value is None or value == word:
            return None
        try:
            return parse(value)
        except ValueError as error:
            suffix = "" if f"or {word}" in str(error) else f"; or {word}"
            raise ValueError(f"{error}{suffix}") from None

    return PlainValidator(read)


def _print_or(word: str, show: Callable[[Any], Any] = str) -> PlainSerializer:
    return PlainSerializer(lambda value: word if value is None else show(value))


def _positive_count(value: object) -> int:
    count = q.parse_count(value)
    if count < 1:
        raise ValueError(f"must be at least 1, not {count}")
    return count


def _positive_size(value: object) -> int:
    size = q.parse_size(value)
    if size < 1:
        raise ValueError(f"must be more than nothing; write {q.SIZE_HELP}")
    return size


def _positive_amount(value: object) -> q.Amount:
    amount = q.parse_amount(value)
    if not amount.value:
        raise ValueError(f"must be more than nothing; write {q.AMOUNT_HELP}")
    return amount


def _optional(parse: Callable[[object], Any]) -> PlainValidator:
    return PlainValidator(lambda value: None if value is None else parse(value))


def _print_if_set(show: Callable[[Any], Any]) -> PlainSerializer:
    return PlainSerializer(lambda value: None if value is None else show(value))


def _text_or_list(value: object) -> object:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else _list_to_tuple(value)


def _list_to_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is an empty text")
    return text


Text = Annotated[str, Field(strict=True)]
Word = Annotated[str, Field(strict=True), AfterValidator(_not_blank)]
Flag = Annotated[bool, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(q.parse_count)]

AutoCount = Annotated[
    int | None,
    _or_word("auto", _positive_count),
    _print_or("auto", int),
    _number_or_text(_COUNT, "auto", minimum=1),
]
AutoShare = Annotated[
    float | None,
    _or_word("auto", q.parse_share),
    _print_or("auto", float),
    _number_or_text(r"^[0-9.]+ ?%$", "auto"),
]
MemoryAmount = Annotated[
    q.Amount, PlainValidator(_positive_amount), PlainSerializer(str), _number_or_text(_AMOUNT)
]
DiskAmount = Annotated[
    q.Amount | None,
    _or_word("auto", q.parse_amount),
    _print_or("auto"),
    _number_or_text(_AMOUNT, "auto"),
]
Duration = Annotated[
    float | None,
    _or_word("none", q.parse_duration),
    _print_or("none", q.format_duration),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _DURATION}, {"enum": ["none"]}]}),
]
FailureLimit = Annotated[
    q.Tolerance | None,
    _or_word("none", q.parse_tolerance),
    _print_or("none", lambda limit: limit.count if limit.share is None else str(limit)),
    _number_or_text(r"^[0-9.]+ ?%$", "none"),
]

MemorySize = Annotated[
    int | None,
    _optional(_positive_size),
    _print_if_set(q.format_size),
    _number_or_text(_SIZE),
]
DiskSize = Annotated[
    int | None, _optional(q.parse_size), _print_if_set(q.format_size), _number_or_text(_SIZE)
]
Rate = Annotated[
    float | None,
    _optional(q.parse_rate),
    _print_if_set(q.format_rate),
    WithJsonSchema({"type": "string", "pattern": _RATE}),
]
FlopRate = Annotated[
    float,
    PlainValidator(q.parse_flop_rate),
    PlainSerializer(q.format_flop_rate),
    WithJsonSchema({"type": "string", "pattern": _FLOP_RATE}),
]

Texts = Annotated[tuple[Word, ...], BeforeValidator(_text_or_list)]
Numbers = Annotated[tuple[Annotated[Count, Field(ge=0)], ...], BeforeValidator(_list_to_tuple)]
ModelPath = Annotated[Word, AfterValidator(model_or_hub_id)]
InputPaths = Annotated[
    tuple[Annotated[Word, AfterValidator(local_input)], ...], BeforeValidator(_text_or_list)
]
OutputPath = Annotated[Word, AfterValidator(local_output)]


def hardware_name(name: str) -> str:
    """`auto`, `cpu`, or a CUDA device; `cuda` is the first one, `cuda:0`."""
    if name == "cuda":
        return "cuda:0"
    if name in ("auto", "cpu") or re.fullmatch(r"cuda:[0-9]{1,3}", name):
        return name
    raise ValueError(f"{name!r} is not auto, cpu, cuda, cuda:N or a machine (a mapping)")


def _columns(value: object) -> object:
    if value in ("all", "none"):
        return value
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ValueError("must be all, none or a list of column names")


keep_columns = PlainValidator(_columns)
