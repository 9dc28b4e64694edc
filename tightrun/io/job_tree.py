"""A job as plain values with their origins, before anything is checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from tightrun.io.job_errors import JobError, shown
from tightrun.io.job_sections import SHORTHANDS
from tightrun.io.places import KeyPath, Origin, Origins, Place, Problem
from tightrun.io.yaml12 import MAX_DEPTH, Interpolate, Tree, YamlError, parse_yaml

MAX_JOB_BYTES = 2**20


def read_tree(source: str | Path, interpolate: Interpolate) -> Tree:
    """The one mapping of a YAML file. Raises JobError when there is none."""
    name = str(source)
    text = _read(source, name)
    try:
        tree = parse_yaml(text, name, interpolate=interpolate)
    except YamlError as error:
        raise JobError([error.problem]) from None
    if tree.value is None:
        raise _refused(name, "is empty; `tightrun init` writes a starter")
    if not isinstance(tree.value, dict):
        place = tree.origins.place(())
        message = f"must hold a mapping (key: value), not {shown(tree.value)}"
        raise JobError([Problem(place, (), message)])
    return tree


def _read(source: str | Path, name: str) -> str:
    if "\n" in name or "\0" in name:
        raise _refused("job", "give the path of a job file, or a mapping, not its text")
    try:
        with Path(source).open("rb") as file:
            data = file.read(MAX_JOB_BYTES + 1)
    except FileNotFoundError:
        raise _refused(name, "no such file; `tightrun init` writes a starter") from None
    except OSError as error:
        raise _refused(name, f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_JOB_BYTES:
        raise _refused(name, "is larger than 1 MiB; is this a job file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        problem = Problem(Place(name, line, column), (), "is not UTF-8 text; save it as UTF-8")
        raise JobError([problem]) from None


def _refused(name: str, message: str) -> JobError:
    return JobError([Problem(Place(name), (), message)])


def tree_of_mapping(source: Mapping[str, Any], name: str) -> Tree:
    """A copy of a mapping; every value has the place `name`."""
    place = Place(name)
    origins = Origins({(): Origin(place, place)})
    return Tree(_plain(source, (), origins), origins, [])


def _plain(value: Any, path: KeyPath, origins: Origins) -> Any:
    """A copy in dicts and lists, so that overrides change nobody else's mapping."""
    origin = origins.known[()]
    origins.known[path] = origin
    if len(path) > MAX_DEPTH:
        raise _refused(origin.value.source, f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {key: _plain(item, (*path, key), origins) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, index), origins) for index, item in enumerate(value)]
    return str(value) if isinstance(value, PurePath) else value


def expand_shorthands(tree: Tree) -> None:
    """Turn `policy: sync` into `policy: {name: sync}`, so that `policy.batches` can be set."""
    for section, key in SHORTHANDS.items():
        text = tree.value.get(section)
        if isinstance(text, str):
            tree.value[section] = {key: text}
            tree.origins.known[(section, key)] = tree.origins.find((section,))
