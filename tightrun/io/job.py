"""The job file: read, overridden, checked; every error with the place it was made at."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tightrun.io.interpolation import interpolator
from tightrun.io.job_errors import JobError, explain, in_order
from tightrun.io.job_model import Job
from tightrun.io.job_overrides import apply_overrides
from tightrun.io.job_print import origins, print_config
from tightrun.io.job_schema import SECTIONS, job_schema
from tightrun.io.job_sections import Machine, Section
from tightrun.io.job_tree import expand_shorthands, read_tree, tree_of_mapping
from tightrun.io.places import KeyPath
from tightrun.io.starter import starter_text
from tightrun.io.yaml12 import Tree

__all__ = [
    "Job",
    "JobError",
    "Machine",
    "job_schema",
    "load_job",
    "load_machine",
    "origins",
    "print_config",
    "starter_text",
]

_Model = TypeVar("_Model", bound=Section)


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
    job_path: Path | None = None
    base = Path.cwd()
    if isinstance(source, Job):
        job_path, base, tree = source.path, source.base, source.tree()
    elif isinstance(source, Mapping):
        tree = tree_of_mapping(source, "job")
    else:
        tree = read_tree(source, interpolator(env))
        job_path = base / source
        base = job_path.parent
    expand_shorthands(tree)
    apply_overrides(tree, overrides, interpolator(env))
    job = _validate(Job, tree, base, env, SECTIONS)
    job._path, job._base, job._origins = job_path, base, tree.origins
    return job


def load_machine(source: str | Path, *, env: Mapping[str, str] | None = None) -> Machine:
    """Read a file that holds a machine, as `hardware:` of a job does. Raises JobError."""
    env = os.environ if env is None else env
    tree = read_tree(source, interpolator(env))
    return _validate(Machine, tree, Path.cwd(), env, {(): Machine})


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
        # What was not read cannot be judged: an unset variable is one problem, not two.
        unread = [p.path for p in problems if p.path and p.place == tree.origins.place(p.path)]
        problems += [
            problem
            for problem in explain(error, tree.origins, sections)
            if not any(problem.path[: len(path)] == path for path in unread)
        ]
    if problems:
        raise JobError(in_order(problems))
    return found
