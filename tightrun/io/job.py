"""The job file: read, overridden, checked; every error with the place it was made at."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

from pydantic import ValidationError

from tightrun.io.interpolation import interpolator
from tightrun.io.job_errors import JobError, explain, in_order, shown
from tightrun.io.job_model import Job
from tightrun.io.job_overrides import apply_overrides
from tightrun.io.job_sections import (
    InputSpec,
    LimitsSpec,
    Machine,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    SamplingSpec,
    Section,
)
from tightrun.io.places import KeyPath, Origin, Origins, Place, Problem
from tightrun.io.yaml12 import MAX_DEPTH, Tree, YamlError, parse_yaml

__all__ = ["Job", "JobError", "Machine", "load_job", "load_machine"]

MAX_JOB_BYTES = 2**20

_Model = TypeVar("_Model", bound=Section)

_JOB_SECTIONS: dict[KeyPath, type[Section]] = {
    (): Job,
    ("model",): ModelSpec,
    ("input",): InputSpec,
    ("sampling",): SamplingSpec,
    ("output",): OutputSpec,
    ("limits",): LimitsSpec,
    ("hardware",): Machine,
    ("policy",): PolicySpec,
}


def load_job(
    source: str | Path | Mapping[str, Any] | Job,
    *,
    overrides: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Job:
    """Read a job from a file, a mapping or another job.

    `overrides` are `a.b=value` with YAML values, applied in order. `env` (default: the
    environment of the process) fills `${VAR}` in files and overrides, not in mappings.
    Relative local paths are resolved against the file's folder, for a mapping against the
    current one. Raises JobError with every problem found.
    """
    env = os.environ if env is None else env
    if isinstance(source, Job):
        if not overrides:
            return source
        job_path, base = source.path, source.base
        tree = _tree_of_mapping(source.resolved(), "job")
    elif isinstance(source, Mapping):
        job_path, base = None, Path.cwd()
        tree = _tree_of_mapping(source, "job")
    else:
        job_path = Path(os.path.abspath(source))  # noqa: PTH100 - resolve() would follow links
        base = job_path.parent
        tree = _tree_of_file(source, env)
    tree = apply_overrides(tree, overrides, interpolator(env))
    job = _validate(Job, tree, base, env, _JOB_SECTIONS)
    job._path, job._base, job._origins = job_path, base, tree.origins
    return job


def load_machine(source: str | Path, *, env: Mapping[str, str] | None = None) -> Machine:
    """Read a file that holds a machine, as `hardware:` of a job does. Raises JobError."""
    env = os.environ if env is None else env
    tree = _tree_of_file(source, env)
    return _validate(Machine, tree, Path(source).parent, env, {(): Machine})


def _validate(
    model: type[_Model],
    tree: Tree,
    base: Path,
    env: Mapping[str, str],
    sections: Mapping[KeyPath, type[Section]],
) -> _Model:
    problems = list(tree.problems)
    try:
        found = model.model_validate(tree.value, context={"base": base, "home": env.get("HOME")})
    except ValidationError as error:
        named = {problem.path for problem in problems}
        new = explain(error, tree.origins, sections)
        problems += [problem for problem in new if problem.path not in named]
    if problems:
        raise JobError(in_order(problems))
    return found


def _tree_of_file(source: str | Path, env: Mapping[str, str]) -> Tree:
    name = str(source)
    text = _read(source, name)
    try:
        tree = parse_yaml(text, name, interpolate=interpolator(env))
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


def _tree_of_mapping(source: Mapping[str, Any], name: str) -> Tree:
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
