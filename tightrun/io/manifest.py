"""manifest.json: what a run is, with what it was made, and how far it came."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from tightrun.io.durable import OWNER_ONLY, Disk
from tightrun.io.fingerprint import fingerprint, fingerprint_parts
from tightrun.io.input_types import Scan

if TYPE_CHECKING:
    from tightrun.io.job import Job

State = Literal["running", "stopped", "complete"]
_PACKAGES = ("tightrun", "torch", "transformers", "safetensors", "pyarrow", "numpy")


def utc_now() -> str:
    """The time now, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def package_versions() -> dict[str, str | None]:
    """Python and the packages that results depend on; none of them is imported for it."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def this_host() -> dict[str, Any]:
    """Name, system and processors of this machine, and our process id."""
    processors = len(os.sched_getaffinity(0))
    host = {"name": platform.node(), "system": platform.platform(), "processors": processors}
    return {**host, "pid": os.getpid()}


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What the writer is told of the run: `number` from 1, `plan` and `host` to be recorded."""

    number: int = 1
    started: str = field(default_factory=utc_now)
    host: Mapping[str, Any] = field(default_factory=this_host)
    plan: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of manifest.json. `rows` is how many the run takes, `errors` counts by code.

    `columns` are those of the output, where they depend on the input, and their types, `learnt` is
    what the next run of the job may begin with. `input_versions` tells, by URL, which content of
    each remote file and dataset is read. `earlier` tells of the runs before this one, oldest first.
    """

    fingerprint: str
    fingerprint_parts: Mapping[str, Any]
    state: State
    run: int
    started: str
    rows: int
    shard_rows: int
    format: str
    job: Mapping[str, Any]
    versions: Mapping[str, str | None]
    host: Mapping[str, Any]
    plan: Mapping[str, Any]
    ended: str | None = None
    rows_done: int = 0
    rows_failed: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    learnt: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    input_versions: Mapping[str, str] = field(default_factory=dict)
    earlier: Sequence[Mapping[str, Any]] = ()

    @property
    def layout(self) -> dict[str, Any]:
        """How the rows lie in the output, as plain JSON values, so that a difference can be shown.

        It is no part of the fingerprint: the rows would be the same.
        """
        about = {"format": self.format, "shard_rows": self.shard_rows, "columns": self.columns}
        return {"output": about}

    def write(self, disk: Disk, path: Path) -> None:
        """Writes the manifest whole; only its owner may read it, prompts may be in it."""
        text = orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        disk.write_whole(path, [text], OWNER_ONLY)


def new_manifest(
    job: Job,
    scan: Scan,
    run_info: RunInfo,
    rows: int,
    columns: Mapping[str, str],
    earlier: Manifest | None,
) -> Manifest:
    """The manifest of a run that begins; `earlier` is that of the run before it."""
    parts = fingerprint_parts(job, scan)
    known = fingerprint(parts)
    same = earlier is not None and earlier.fingerprint == known
    return Manifest(
        fingerprint=known,
        fingerprint_parts=parts,
        state="running",
        run=run_info.number,
        started=run_info.started,
        rows=rows,
        shard_rows=job.output.shard_rows,
        format=job.output.format,
        job=job.resolved(),
        versions=package_versions(),
        host=run_info.host,
        plan=run_info.plan,
        columns=columns,
        input_versions=scan.versions,
        learnt=earlier.learnt if earlier is not None and same else {},
        earlier=[] if earlier is None else [*earlier.earlier, _in_short(earlier)],
    )


def _in_short(ended: Manifest) -> dict[str, Any]:
    """What is kept of a run when the next one begins; one that still says running has died."""
    state = "died" if ended.state == "running" else ended.state
    about = {"run": ended.run, "state": state, "started": ended.started, "ended": ended.ended}
    return {**about, "rows": ended.rows, "host": ended.host.get("name")}


def read_manifest(path: Path) -> Manifest | None:
    """The manifest at `path`, None if there is none; ValueError if it is not one of ours."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    return manifest_of(text, str(path))


def manifest_of(text: bytes, name: str) -> Manifest:
    """The manifest that a file of this content and name is; ValueError if it is not one of ours."""
    try:
        content = orjson.loads(text)
        known = {item.name for item in fields(Manifest)}
        return Manifest(**{key: value for key, value in content.items() if key in known})
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{name} is not a manifest that this version can read: {error}") from error
