"""What was wrong with a job file, said so that the next attempt is right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from tightrun.io.interpolation import looks_secret
from tightrun.io.job_checks import CHECK_FAILED
from tightrun.io.job_sections import MACHINE_TAG, NAME_TAG
from tightrun.io.places import KeyPath, Origins, Problem, dotted

_KEYS_ELSEWHERE = {
    "max_new_tokens": "sampling.max_tokens",
    "max_completion_tokens": "sampling.max_tokens",
    "top_logprobs": "sampling.logprobs",
    "temp": "sampling.temperature",
    "gpu_memory_utilization": "limits.gpu_memory",
    "max_model_len": "limits.context",
    "max_length": "limits.context",
    "timeout": "limits.time",
    "device": "hardware",
    "gpu": "hardware",
    "files": "input.path",
    "data": "input.path",
    "inputs": "input",
    "outputs": "output",
    "output_path": "output.path",
    "column": "input.prompt",
    "prompt_template": "input.template",
    "system_prompt": "input.system",
    "torch_dtype": "model.dtype",
    "recompute_ratio": "policy.recompute",
    "num_batches": "policy.batches",
}
"""What people who come from other tools write, and where it is here."""

_VALUES_ELSEWHERE = {
    **{"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32"},
    **{"float": "float32", "json": "jsonl", "ndjson": "jsonl", "openai": "openai-batch"},
    **{"yes": "true", "on": "true", "no": "false", "off": "false"},
}


_NO_SUCH_KEY = ("extra_forbidden", "invalid_key")


class JobError(ValueError):
    """A job that cannot be read. `errors` has every problem found; the text has one a line."""

    def __init__(self, errors: Iterable[Problem]) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(str(error) for error in self.errors))


def explain(
    error: ValidationError, origins: Origins, sections: Mapping[KeyPath, type[BaseModel]]
) -> list[Problem]:
    """The problems of a failed validation, with places.

    `sections` are the models by the path they stand at.
    """
    details = error.errors(include_url=False)
    return [problem for detail in details for problem in _problems(detail, origins, sections)]


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Each once, by place, those of the command line last."""
    unique = {str(problem): problem for problem in problems}

    def position(problem: Problem) -> tuple[bool, int, int]:
        place = problem.place
        return place.line is None, place.line or 0, place.column or 0

    return sorted(unique.values(), key=position)


def _problems(
    detail: ErrorDetails, origins: Origins, sections: Mapping[KeyPath, type[BaseModel]]
) -> Iterator[Problem]:
    kind, context = detail["type"], detail.get("ctx", {})
    path, of_key = _place_in_file(detail["loc"], kind)
    if kind == CHECK_FAILED:
        for conflict in context["conflicts"]:
            below = (*path, *conflict.field.split(".")) if conflict.field else path
            yield Problem(origins.place(below), below, conflict.message)
    elif of_key:
        about = _unknown_key(path, sections) if kind in _NO_SUCH_KEY else _wrong_value(detail)
        yield Problem(origins.place(path, of_key=True), path, about)
    elif kind == "missing":
        yield Problem(origins.place(path), path, _missing(path, sections))
    else:
        yield _problem_of_value(detail, path, origins, sections)


def _problem_of_value(
    detail: ErrorDetails,
    path: KeyPath,
    origins: Origins,
    sections: Mapping[KeyPath, type[BaseModel]],
) -> Problem:
    origin = origins.find(path)
    if any(looks_secret(name) for name in origin.variables):
        return Problem(origin.value, path, f"does not accept {origin.written}")
    message = _wrong_value(detail)
    if detail["type"] == "string_type" and origin.variables:
        message = message.replace("put it in quotes", f"write !!str {origin.written}")
    if path in sections:
        first = next(iter(sections[path].model_fields))
        message = message.replace("(key: value)", f"such as {{{first}: ...}}")
    field = _field(path, sections)
    if field and field.is_required():
        message = message.replace(", or remove the line", "")
    return Problem(origin.value, path, message)


def _place_in_file(location: tuple[str | int, ...], kind: str) -> tuple[KeyPath, bool]:
    """The path in the file, and whether the error is about its key.

    Pydantic adds which form of `hardware` it took, and "[key]" after a key that is no number.
    """
    if location[:1] == ("hardware",) and location[1:2] in [(NAME_TAG,), (MACHINE_TAG,)]:
        location = (location[0], *location[2:])
    if kind in _NO_SUCH_KEY:
        return location, True
    return (location[:-1], True) if location[-1:] == ("[key]",) else (location, False)


def _unknown_key(path: KeyPath, sections: Mapping[KeyPath, type[BaseModel]]) -> str:
    key, parent = str(path[-1]), path[:-1]
    here = list(sections[parent].model_fields) if parent in sections else []
    meant = _meant(key.lower().replace("-", "_"), parent, here, sections)
    if meant:
        return f"unknown key; did you mean {_choice([repr(name) for name in meant])}?"
    return f"unknown key; known here: {', '.join(here)}" if here else "unknown key"


def _meant(
    key: str, parent: KeyPath, here: list[str], sections: Mapping[KeyPath, type[BaseModel]]
) -> list[str]:
    """Keys somebody who wrote `key` may have had in mind; those of other sections in full."""
    if key in here:
        return [key]
    elsewhere = {
        dotted((*at, name)): name
        for at in sections
        if at != parent
        for name in sections[at].model_fields
    }
    exact = [full for full, name in elsewhere.items() if name == key]
    if exact:
        return exact
    if _KEYS_ELSEWHERE.get(key) in elsewhere:
        return [_KEYS_ELSEWHERE[key]]
    close = difflib.get_close_matches(key, here, n=1, cutoff=0.6)
    if close:
        return close
    alike = difflib.get_close_matches(key, elsewhere.values(), n=1, cutoff=0.8)
    return [full for full, name in elsewhere.items() if name in alike]


def _missing(path: KeyPath, sections: Mapping[KeyPath, type[BaseModel]]) -> str:
    field = _field(path, sections)
    return f"missing. {field.description}" if field and field.description else "missing"


def _field(path: KeyPath, sections: Mapping[KeyPath, type[BaseModel]]) -> FieldInfo | None:
    section = sections.get(path[:-1])
    return section.model_fields.get(str(path[-1])) if section and path else None


def _wrong_value(detail: ErrorDetails) -> str:
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return _not_among(context["expected"], value)
    bounds = {
        "greater_than_equal": ("ge", "at least"),
        "greater_than": ("gt", "more than"),
        "less_than_equal": ("le", "at most"),
        "less_than": ("lt", "less than"),
    }
    if kind in bounds:
        name, words = bounds[kind]
        return f"must be {words} {context[name]:g}, not {shown(value)}"
    if value is None:
        return f"has no value; must be {_EXPECTED.get(kind, 'given')}, or remove the line"
    if kind in _EXPECTED:
        return f"must be {_EXPECTED[kind]}, not {shown(value)}{_remedy(kind, value)}"
    return f"{detail['msg']}, not {shown(value)}"


_EXPECTED = {
    "string_type": "a text",
    "bool_type": "true or false",
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
}


def _remedy(kind: str, value: Any) -> str:
    if kind == "string_type" and isinstance(value, int | float):
        return "; put it in quotes"
    if kind == "bool_type" and str(value).lower() in ("yes", "no", "on", "off"):
        return f"; write {_VALUES_ELSEWHERE[str(value).lower()]}"
    if kind == "float_type" and isinstance(value, str) and value.replace(".", "", 1).isdigit():
        return "; remove the quotes"
    return ""


def _not_among(expected: str, value: Any) -> str:
    options = expected.replace("'", "").replace(" or ", ", ").split(", ")
    options = [{"True": "true", "False": "false"}.get(option, option) for option in options]
    message = f"must be {_choice(options)}, not {shown(value)}"
    if not isinstance(value, str):
        return message
    wanted = _VALUES_ELSEWHERE.get(value.lower(), value.lower().replace("_", "-"))
    close = difflib.get_close_matches(wanted, options, n=1, cutoff=0.6)
    close = close or difflib.get_close_matches(value.lower(), options, n=1, cutoff=0.6)
    return f"{message}; did you mean '{close[0]}'?" if close else message


def _choice(options: Sequence[str]) -> str:
    *most, last = options
    return f"{', '.join(most)} or {last}" if most else last


def shown(value: Any) -> str:
    """A value as a person would recognise it in the file, short."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"the number {value}" if value.bit_length() < 128 else "so large a number"
    if isinstance(value, float):
        return f"the number {value:g}"
    if isinstance(value, str):
        return f"the text {value[:60]!r}" + ("..." if len(value) > 60 else "")
    if isinstance(value, list | tuple):
        return "a list"
    return "a mapping" if isinstance(value, dict) else f"a {type(value).__name__}"
