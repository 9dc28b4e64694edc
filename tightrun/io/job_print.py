"""The resolved job as YAML that loads again, each value with where it came from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tightrun.io.interpolation import escape
from tightrun.io.job_model import Job
from tightrun.io.places import KeyPath, Origin, dotted
from tightrun.io.yaml12 import resolve_scalar

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./%+-]*")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
_WIDEST_ALIGNED = 60


def print_config(job: Job) -> str:
    """YAML of the job with every default, and each value's origin as a comment.

    Loading it gives the same job; secrets stay the `${VAR}` they were.
    """
    lines = list(_mapping(job, job.model_dump(mode="json"), ()))
    widths = [len(text) for text, origin in lines if origin and len(text) <= _WIDEST_ALIGNED]
    width = max(widths, default=0)
    return "".join(
        f"{text:<{width}}  # {origin}\n" if origin else f"{text}\n" for text, origin in lines
    )


def origins(job: Job) -> dict[str, str]:
    """Where each value came from, by dotted name.

    `default`, `job.yaml:4`, `--set`, `environment VAR`, or `job` for a mapping's values.
    """
    return dict(_leaves(job, job.model_dump(mode="json"), ()))


def _leaves(job: Job, value: Any, path: KeyPath) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(job, item, (*path, key))
    else:
        yield dotted(path), _origin_of(job, value, path)


def _mapping(job: Job, values: dict[str, Any], path: KeyPath) -> Iterator[tuple[str, str]]:
    indent = "  " * len(path)
    for key, value in values.items():
        below = (*path, key)
        if isinstance(value, dict) and value:
            yield f"{indent}{_text(key)}:", ""
            yield from _mapping(job, value, below)
        else:
            name = key if resolve_scalar(key) != key else _text(key)
            yield f"{indent}{name}: {_value(job, value, below)}", _origin_of(job, value, below)


def _value(job: Job, value: Any, path: KeyPath) -> str:
    if isinstance(value, list):
        items = (_value(job, item, (*path, index)) for index, item in enumerate(value))
        return f"[{', '.join(items)}]"
    if isinstance(value, dict):
        return "{}"
    secret = job.secret(path)
    if secret is not None:
        return _quoted(secret) if isinstance(value, str) else secret
    if isinstance(value, str):
        return _text(escape(value))
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _origin_of(job: Job, value: Any, path: KeyPath) -> str:
    items = range(len(value)) if isinstance(value, list) else ()
    paths = [path, *((*path, index) for index in items)]
    found = [origin for origin in map(job.origin, paths) if origin is not None]
    variables = dict.fromkeys(name for origin in found for name in origin.variables)
    if variables:
        return "environment " + ", ".join(variables)
    return _place_of(found[0]) if found else "default"


def _place_of(origin: Origin) -> str:
    place = origin.value
    if place.source.startswith("--set "):
        return "--set"
    return place.source if place.line is None else f"{place.source}:{place.line}"


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and resolve_scalar(text) == text:
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(char) or _printable(char) for char in text) + '"'


def _printable(char: str) -> str:
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
