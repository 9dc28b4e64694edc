"""manifest.json: what a run is, with what it was made, and how far it came."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import orjson

from tightrun.io.durable import OWNER_ONLY, Disk

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
    """The content of manifest.json. `rows` is how many the run takes, `errors` counts by code,
    `learnt` is what the next run of the job may begin with."""

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

    def write(self, disk: Disk, path: Path) -> None:
        """Writes the manifest whole; only its owner may read it, prompts may be in it."""
        text = orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        disk.write_whole(path, [text], OWNER_ONLY)


def read_manifest(path: Path) -> Manifest | None:
    """The manifest at `path`, None if there is none; ValueError if it is not one of ours."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        content = orjson.loads(text)
        known = {item.name for item in fields(Manifest)}
        return Manifest(**{key: value for key, value in content.items() if key in known})
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a manifest that this version can read: {error}") from error
