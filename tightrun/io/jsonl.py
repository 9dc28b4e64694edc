"""JSON lines: bounded reading of lines, and one strict way to parse a line into an object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import orjson

from tightrun.io.input_types import BadRowError

MAX_LINE_BYTES = 64 << 20
MAX_DEPTH = 200

_BOM = b"\xef\xbb\xbf"
_SKIP_BYTES = 1 << 20
# Every digit becomes "0", so that one substring search finds a long run of any digits.
_DIGITS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0 for byte in range(256))
_LONG_NUMBER = b"0" * 19


class Line(NamedTuple):
    """A line that is not blank: where it begins, its number from 1, its bytes.

    `raw` is None when the line is longer than the bound; then `size` alone tells of it.
    """

    offset: int
    number: int
    raw: bytes | None
    size: int


def read_lines(
    file: BinaryIO, offset: int = 0, number: int = 1, limit: int = MAX_LINE_BYTES
) -> Iterator[Line]:
    """Yields the lines of `file` that are not blank, from byte `offset`, which is line `number`.

    Never holds more than one line, nor more than `limit` bytes of it.
    """
    file.seek(offset)
    while raw := file.readline(limit + 1):
        begin, size = offset, len(raw)
        kept: bytes | None = raw
        if size > limit and not raw.endswith(b"\n"):
            kept, size = None, size + _skip_line(file)
        offset += size
        if kept is not None and begin == 0 and kept.startswith(_BOM):
            kept = kept[len(_BOM) :]
        if kept is None or (kept and not kept.isspace()):
            yield Line(begin, number, kept, size)
        number += 1


def _skip_line(file: BinaryIO) -> int:
    skipped = 0
    while rest := file.readline(_SKIP_BYTES):
        skipped += len(rest)
        if rest.endswith(b"\n"):
            break
    return skipped


def parse_object(raw: bytes | None) -> dict[str, Any]:
    """The JSON object in a line, numbers exact; raises BadRowError for anything else."""
    if raw is None:
        raise _bad(f"the line is longer than {MAX_LINE_BYTES >> 20} MiB")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _bad(_why_not_json(raw, error)) from None
    if not isinstance(value, dict):
        raise _bad(f"a row must be a JSON object, this line is {json_kind(value)}")
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise _bad(f"the line nests deeper than {MAX_DEPTH} levels")
    if _LONG_NUMBER in raw.translate(_DIGITS):
        # orjson turns integers beyond 64 bits into floats; the standard library keeps them.
        try:
            value = json.loads(raw)
        except ValueError as error:
            raise _bad(f"the line holds a number that is too long: {error}") from None
    row: dict[str, Any] = value
    return row


def json_text(value: Any) -> str:
    """`value` as compact JSON; integers of any size, dates and bytes as text."""
    try:
        return orjson.dumps(value, default=_as_json).decode()
    except (TypeError, ValueError):
        return json.dumps(value, ensure_ascii=False, default=_as_json, separators=(",", ":"))


def json_kind(value: Any) -> str:
    """What JSON calls the type of `value`, with its article: "a number", "an array"."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    names |= {list: "an array", dict: "an object", bytes: "binary"}
    return names.get(type(value), f"of type {type(value).__name__}")


def _bad(why: str) -> BadRowError:
    return BadRowError("bad_row", why)


def _as_json(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else str(value)


def _why_not_json(raw: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as wrong:
        return f"the line is not valid UTF-8 (byte {wrong.start + 1} is 0x{raw[wrong.start]:02x})"
    where = text[max(error.pos - 1, 0) : error.pos + 9]
    hint = "; NaN and Infinity are not JSON" if "NaN" in where or "Infinity" in where else ""
    return f"the line is not valid JSON: {error.msg} (column {error.pos + 1}){hint}"


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        children: list[Any] = []
        for node in level:
            children.extend(node.values() if isinstance(node, dict) else node)
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return False
    return True
