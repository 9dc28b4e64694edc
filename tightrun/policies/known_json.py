"""What is known of a model, as JSON and back; strict: an old file is never half believed."""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from tightrun.policies.hardware import Rates
from tightrun.policies.profile import Known, Measured, ModelProfile

# Raised whenever the numbers mean something else than before, or are found in another way.
VERSION = 7

T = TypeVar("T")


def known_to_json(known: Known) -> dict[str, Any]:
    """Plain JSON values; tuples become lists when they are written."""
    return {"version": VERSION} | asdict(known)


def known_from_json(value: object) -> Known:
    """What `known_to_json` gave. Raises ValueError for anything else, saying where."""
    if not isinstance(value, dict) or value.get("version") != VERSION:
        found = value.get("version") if isinstance(value, dict) else None
        raise ValueError(f"version {found!r} is not {VERSION}")
    return _read(Known, {k: v for k, v in value.items() if k != "version"}, "known")


def profile_from_json(value: object) -> ModelProfile:
    """A profile as it stands in `known_to_json`. Raises ValueError."""
    return _read(ModelProfile, value, "profile")


def rates_from_json(value: object) -> Rates:
    """Rates as they stand in `known_to_json`. Raises ValueError."""
    return _read(Rates, value, "rates")


def measured_from_json(value: object) -> Measured:
    """How rates were measured, as it stands in `known_to_json`. Raises ValueError."""
    return _read(Measured, value, "measured")


def _read(kind: type[T], value: object, where: str) -> T:
    """The dataclass from a mapping with exactly its fields."""
    assert is_dataclass(kind)
    if not isinstance(value, dict):
        raise ValueError(f"{where} is no mapping")
    names = [field.name for field in fields(kind)]
    if set(value) != set(names):
        odd = sorted(set(value) ^ set(names))
        raise ValueError(f"{where} has other fields: {', '.join(odd)}")
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value[name], f"{where}.{name}") for name in names})


def _value(hint: Any, value: object, where: str) -> Any:
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return _read(hint, value, where)
    origin, inside = get_origin(hint), get_args(hint)
    if origin is tuple:
        return _tuple(inside, value, where)
    if origin in (Union, UnionType):
        if value is None and NoneType in inside:
            return None
        (only,) = [x for x in inside if x is not NoneType]
        return _value(only, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{where} is no {hint.__name__}: {value!r}")
    return value


def _tuple(inside: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} is no list")
    if inside[-1] is Ellipsis:
        return tuple(_value(inside[0], x, f"{where}[{i}]") for i, x in enumerate(value))
    if len(value) != len(inside):
        raise ValueError(f"{where} has {len(value)} items instead of {len(inside)}")
    pairs = enumerate(zip(inside, value, strict=True))
    return tuple(_value(hint, x, f"{where}[{i}]") for i, (hint, x) in pairs)
