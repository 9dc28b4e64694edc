"""`--set a.b=value`: values from the command line, put over those of the file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tightrun.io.job_tree import expand_shorthands
from tightrun.io.places import KeyPath, Origin, Origins, Place, Problem, dotted
from tightrun.io.yaml12 import Interpolate, Tree, YamlError, parse_yaml

_INDEX = re.compile(r"[0-9]{1,9}")


def apply_overrides(tree: Tree, overrides: Iterable[str], interpolate: Interpolate) -> None:
    """Set every `a.b=value` in the tree, in turn; mappings on the way are made.

    Values are YAML. A number steps into a list that is there (`input.path.0=x`). What cannot
    be read becomes a problem of the tree.
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
        expand_shorthands(tree)


def _put(tree: Tree, keys: list[str], value: Any) -> KeyPath | str:
    """Set the value; its path, or what is in the way."""
    holder = tree.value
    path: KeyPath = ()
    for index, key in enumerate(keys, start=1):
        step = _step(holder, key)
        if step is None:
            return f"{dotted(path)} is a list of {len(holder)}; {key!r} is no index of it"
        path = (*path, step)
        if index < len(keys):
            holder = _below(holder, step)
    holder[path[-1]] = value
    return path


def _step(holder: Any, key: str) -> str | int | None:
    if isinstance(holder, list):
        return int(key) if _INDEX.fullmatch(key) and int(key) < len(holder) else None
    # `flops: {64: ...}` has a number for a key; a dotted name can only spell it.
    number = int(key) if _INDEX.fullmatch(key) else None
    return number if number in holder else key


def _below(holder: Any, step: str | int) -> Any:
    """What is at `step`, or a new mapping where there is nothing to step into."""
    there = isinstance(holder, list) or step in holder
    if not there or not isinstance(holder[step], dict | list):
        holder[step] = {}
    return holder[step]


def _record(origins: Origins, path: KeyPath, value: Tree, place: Place) -> None:
    origins.forget(path)
    for end in range(1, len(path)):
        origins.known.setdefault(path[:end], Origin(place, place))
    for below in value.origins:
        known = value.origins.known[below]
        origins.known[(*path, *below)] = Origin(place, place, known.variables, known.written)
