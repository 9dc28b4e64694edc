"""`--set a.b=value`: values from the command line, put over those of the file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tightrun.io.job_sections import SHORTHANDS
from tightrun.io.places import KeyPath, Origin, Origins, Place, Problem, dotted
from tightrun.io.yaml12 import Interpolate, Tree, YamlError, parse_yaml

_INDEX = re.compile(r"[0-9]{1,9}")


def apply_overrides(tree: Tree, overrides: Iterable[str], interpolate: Interpolate | None) -> Tree:
    """The tree with every `a.b=value` set in turn; mappings on the way are made.

    Values are YAML. A number steps into a list that is there (`input.path.0=x`). The tree
    given is changed. What cannot be read becomes a problem of the tree.
    """
    for override in overrides:
        name, equals, text = override.partition("=")
        place = Place(f"--set {name.strip()}")
        keys = [key.strip() for key in name.split(".")]
        if not equals or not all(keys):
            message = "write a dotted key, =, and a value, as in --set sampling.seed=1"
            tree.problems.append(Problem(Place(f"--set {override}"), (), message))
            continue
        try:
            value = parse_yaml(text, place.source, interpolate=interpolate)
        except YamlError as error:
            tree.problems.append(Problem(place, (), error.problem.message))
            continue
        path = _put(tree, keys, value.value)
        if isinstance(path, str):
            tree.problems.append(Problem(place, (), path))
            continue
        _record(tree.origins, path, value, place)
        problems = [Problem(place, (*path, *p.path), p.message) for p in value.problems]
        tree.problems.extend(problems)
    return tree


def _put(tree: Tree, keys: list[str], value: Any) -> KeyPath | str:
    """Set the value; its path, or what is in the way."""
    holder: Any = tree.value
    path: KeyPath = ()
    for index, key in enumerate(keys):
        step = _step(holder, key)
        if step is None:
            return f"{dotted(path)} is a list of {len(holder)}; {key!r} is no index of it"
        path = (*path, step)
        if index == len(keys) - 1:
            holder[step] = value
            break
        below = holder[step] if isinstance(holder, list) or step in holder else None
        if not isinstance(below, dict | list):
            below = holder[step] = _as_mapping(tree.origins, path, below)
        holder = below
    return path


def _step(holder: Any, key: str) -> str | int | None:
    if isinstance(holder, list):
        return int(key) if _INDEX.fullmatch(key) and int(key) < len(holder) else None
    # `flops: {64: ...}` has a number for a key; a dotted name can only spell it.
    return next((known for known in holder if str(known) == key), key)


def _as_mapping(origins: Origins, path: KeyPath, below: Any) -> dict[Any, Any]:
    shorthand = SHORTHANDS.get(dotted(path))
    if shorthand and isinstance(below, str):
        origins.known[(*path, shorthand)] = origins.find(path)
        return {shorthand: below}
    return {}


def _record(origins: Origins, path: KeyPath, value: Tree, place: Place) -> None:
    origins.forget(path)
    for end in range(1, len(path)):
        origins.known.setdefault(path[:end], Origin(place, place))
    for below in value.origins:
        known = value.origins.known[below]
        origins.known[(*path, *below)] = Origin(place, place, known.variables, known.written)
