"""The types of the job file's fields: what is accepted, how it prints, its JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

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

_BYTES = r"([KMGTPkmgtp]i?)?[Bb]"
_SIZE = rf"^[0-9.]+ *{_BYTES}$"
_SHARE = r"^[0-9.]+ *%$"
_AMOUNT = rf"^[0-9.]+ *(%|{_BYTES})$"
_RATE = rf"^[0-9.]+ *{_BYTES}(/s|ps)$"
_FLOP_RATE = r"^[0-9.]+ *[KMGTPkmgtp]?([Ff][Ll][Oo][Pp][Ss]?)(/[Ss])?$"
_DURATION = r"^([0-9.]+ *(d|h|m|min|s) *)+$|^([0-9]+-)?[0-9]+:[0-9]{2}:[0-9]{2}$"
_COUNT = r"^[0-9]+([_,][0-9]{3})*$"
_HARDWARE = r"^(auto|cpu|cuda(:[0-9]+)?)$"


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
        section = handler(schema)
        forms = [section]
        if self.shorthand:
            rules = handler.resolve_ref_schema(section)["properties"][self.shorthand]
            forms.append({key: rules[key] for key in ("type", "enum") if key in rules})
        if self.may_be_empty:
            forms.append({"type": "null"})
        return {"anyOf": forms}


def _schema(
    *words: str | None, pattern: str | None = None, number: dict[str, Any] | None = None
) -> WithJsonSchema:
    """Numbers within bounds, texts of a pattern, and a few words."""
    forms: list[dict[str, Any]] = []
    if number is not None:
        forms.append({"type": "number", **number})
    if pattern is not None:
        forms.append({"type": "string", "pattern": pattern})
    if words:
        forms.append({"enum": list(words)})
    return WithJsonSchema({"anyOf": forms})


_ONE_TEXT_OR_LIST = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
)


def _or_word(word: str, parse: Callable[[object], Any]) -> PlainValidator:
    """None for the word that leaves the choice to us (or lifts the limit), else parsed."""

    def read(value: object) -> Any:
        if value is None or value == word:
            return None
        try:
            return parse(value)
        except ValueError as error:
            suffix = "" if f"or {word}" in str(error) else f"; or write {word}"
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
    if not isinstance(value, str | list | tuple):
        raise ValueError("must be a text or a list of texts")
    return (value,) if isinstance(value, str) else tuple(value)


def _list_to_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is an empty text")
    return text


def _hardware_name(name: str) -> str:
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
    example = value if isinstance(value, str) and value else "question"
    raise ValueError(f"must be all, none or a list of columns such as [{example}]")


Text = Annotated[str, Field(strict=True)]
Word = Annotated[str, Field(strict=True), AfterValidator(_not_blank)]
Flag = Annotated[bool, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
AS_COUNT = BeforeValidator(q.parse_count)

AutoCount = Annotated[
    int | None,
    _or_word("auto", _positive_count),
    _print_or("auto", int),
    _schema("auto", None, pattern=_COUNT, number={"minimum": 1}),
]
AutoShare = Annotated[
    float | None,
    _or_word("auto", q.parse_share),
    _print_or("auto", float),
    _schema("auto", None, pattern=_SHARE, number={"minimum": 0, "maximum": 1}),
]
MemoryAmount = Annotated[
    q.Amount,
    PlainValidator(_positive_amount),
    PlainSerializer(str),
    _schema(pattern=_AMOUNT, number={"exclusiveMinimum": 0}),
]
DiskAmount = Annotated[
    q.Amount | None,
    _or_word("auto", q.parse_amount),
    _print_or("auto"),
    _schema("auto", None, pattern=_AMOUNT, number={"minimum": 0}),
]
Duration = Annotated[
    float | None,
    _or_word("none", q.parse_duration),
    _print_or("none", q.format_duration),
    _schema("none", None, pattern=_DURATION),
]
FailureLimit = Annotated[
    q.Tolerance | None,
    _or_word("none", q.parse_tolerance),
    _print_or("none", lambda limit: limit.count if limit.share is None else str(limit)),
    _schema("none", None, pattern=_SHARE, number={"minimum": 0}),
]

MemorySize = Annotated[
    int | None,
    _optional(_positive_size),
    _print_if_set(q.format_size),
    _schema(None, pattern=_SIZE, number={"minimum": 2**20}),
]
DiskSize = Annotated[
    int | None,
    _optional(q.parse_size),
    _print_if_set(q.format_size),
    _schema(None, pattern=_SIZE, number={"minimum": 0}),
]
Rate = Annotated[
    float | None,
    _optional(q.parse_rate),
    _print_if_set(q.format_rate),
    _schema(None, pattern=_RATE),
]
FlopRate = Annotated[
    float,
    PlainValidator(q.parse_flop_rate),
    PlainSerializer(q.format_flop_rate),
    _schema(pattern=_FLOP_RATE),
]

Texts = Annotated[tuple[Word, ...], BeforeValidator(_text_or_list), _ONE_TEXT_OR_LIST]
Numbers = Annotated[
    tuple[Annotated[int, Field(ge=0), AS_COUNT], ...], BeforeValidator(_list_to_tuple)
]
ModelPath = Annotated[Word, AfterValidator(model_or_hub_id)]
InputPaths = Annotated[
    tuple[Annotated[Word, AfterValidator(local_input)], ...],
    BeforeValidator(_text_or_list),
    _ONE_TEXT_OR_LIST,
]
OutputPath = Annotated[Word, AfterValidator(local_output)]
Columns = Annotated[
    Literal["all", "none"] | tuple[str, ...],
    PlainValidator(_columns),
    PlainSerializer(lambda value: value if isinstance(value, str) else list(value)),
    WithJsonSchema(
        {"anyOf": [{"enum": ["all", "none"]}, {"type": "array", "items": {"type": "string"}}]}
    ),
]
HardwareName = Annotated[
    Text,
    AfterValidator(_hardware_name),
    WithJsonSchema({"type": "string", "pattern": _HARDWARE}),
]
