"""The job as a whole: its sections, where it came from, and its plain form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from tightrun.io.interpolation import looks_secret
from tightrun.io.job_sections import (
    SHORTHANDS,
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
from tightrun.io.places import KeyPath, Origin, Origins, Place, dotted


class Job(Section):
    """One job: what to run, on what, where to and within which limits.

    Made by `load_job`; relative local paths are then absolute.
    """

    model: Annotated[ModelSpec, SectionForm(SHORTHANDS["model"])] = Field(
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
    policy: Annotated[PolicySpec, SectionForm(SHORTHANDS["policy"], may_be_empty=True)] = Field(
        default_factory=PolicySpec, description="adaptive, static, sync, or a mapping."
    )
    on_overflow: Literal["error", "truncate_left"] = Field(
        default="error", description="What to do with a prompt longer than the context."
    )

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

        A shorthand (`policy: sync`) and a text for a list count as the value they stand for.
        """
        known = self._origins.known
        if path in known or not path:
            return known.get(path)
        holder = path[:-1]
        stands_for = 0 if isinstance(path[-1], int) else SHORTHANDS.get(dotted(holder))
        has_parts = any(other[:-1] == holder for other in known if other)
        return known.get(holder) if path[-1] == stands_for and not has_parts else None

    def resolved(self) -> dict[str, Any]:
        """All values, defaults included, as plain JSON values; loading them gives this job.

        A value that came from a secret-looking environment variable (`..._TOKEN`, `..._KEY`)
        stays as the job file has it, `${HF_TOKEN}`.
        """
        values = self.model_dump(mode="json")
        return {key: self._without_secrets(value, (key,)) for key, value in values.items()}

    def _without_secrets(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: self._without_secrets(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            items = enumerate(value)
            return [self._without_secrets(item, (*path, index)) for index, item in items]
        origin = self.origin(path)
        secret = origin and any(looks_secret(name) for name in origin.variables)
        return origin.written if origin and secret else value
