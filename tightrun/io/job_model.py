"""The job as a whole: its sections, where it came from, and its plain form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from tightrun.io import job_checks
from tightrun.io.interpolation import looks_secret
from tightrun.io.job_sections import (
    Hardware,
    InputSpec,
    LimitsSpec,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    SamplingSpec,
    Section,
)
from tightrun.io.job_types import SectionForm
from tightrun.io.places import KeyPath, Origin, Origins, Place
from tightrun.io.yaml12 import Tree


class Job(Section):
    """One job: what to run, on what, where to and within which limits.

    Made by `load_job`; relative local paths are then absolute.
    """

    model: Annotated[ModelSpec, SectionForm("path")] = Field(
        description="Model to run: a local folder or hub name, or a mapping."
    )
    input: InputSpec = Field(description="Rows to read.")
    sampling: Annotated[SamplingSpec, SectionForm(may_be_empty=True)] = Field(
        default_factory=SamplingSpec, description="How tokens are drawn."
    )
    output: OutputSpec = Field(description="Where the rows go.")
    limits: Annotated[LimitsSpec, SectionForm(may_be_empty=True)] = Field(
        default_factory=LimitsSpec, description="What may be used, and when to give up."
    )
    hardware: Hardware = Field(
        default="auto", description="auto, cpu, cuda, cuda:N, or a machine to emulate."
    )
    policy: Annotated[PolicySpec, SectionForm("name", may_be_empty=True)] = Field(
        default_factory=PolicySpec, description="adaptive, static, sync, or a mapping."
    )
    on_overflow: Literal["error", "truncate_left"] = Field(
        default="error", description="What to do with a prompt longer than the context."
    )

    @model_validator(mode="after")
    def _agrees(self) -> Job:
        job_checks.refuse(job_checks.job_problems(self))
        return self

    _path: Path | None = PrivateAttr(None)
    _base: Path = PrivateAttr(default_factory=Path.cwd)
    _origins: Origins = PrivateAttr(
        default_factory=lambda: Origins({(): Origin(Place("job"), Place("job"))})
    )

    @property
    def path(self) -> Path | None:
        """The job file, absolute; None for a job that was given as a mapping."""
        return self._path

    @property
    def base(self) -> Path:
        """The folder that relative paths were resolved against."""
        return self._base

    def origin(self, path: KeyPath) -> Origin | None:
        """Where the value at `path` came from; None for a default.

        One text for a list (`path: data/`) counts as its first item, and a key that is a
        number in the file may be given as text.
        """
        known = self._origins.known
        if path in known or not path:
            return known.get(path)
        *above, last = path
        if isinstance(last, str):
            return known.get((*above, int(last))) if last.isdecimal() else None
        return known.get(tuple(above)) if last == 0 else None

    def secret(self, path: KeyPath) -> str | None:
        """What the job file says for a value that holds a secret, such as `${HF_TOKEN}`."""
        origin = self.origin(path)
        if origin and any(looks_secret(variable) for variable in origin.variables):
            return origin.written
        return None

    def resolved(self) -> dict[str, Any]:
        """All values, defaults included, as plain JSON values; loading them gives this job.

        A value that came from an environment variable whose name looks secret (`..._TOKEN`,
        `..._KEY`) stays as the job file has it.
        """
        values = self.model_dump(mode="json")
        return {key: self._without_secrets(value, (key,)) for key, value in values.items()}

    def tree(self) -> Tree:
        """All values with their origins, to be overridden and checked again."""
        return Tree(self.model_dump(mode="json"), Origins(dict(self._origins.known)), [])

    def _without_secrets(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: self._without_secrets(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            items = enumerate(value)
            return [self._without_secrets(item, (*path, index)) for index, item in items]
        return self.secret(path) or value
