"""What makes two runs the same job: the same rows would come out of both.

It covers model, tokenizer, prompt template, sampling and the input's ids; not batch sizes,
policy, device or output format, so that a job may go on with other hardware.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tightrun.io.input_types import Scan

if TYPE_CHECKING:
    from tightrun.io.job import Job

_SMALL_FILE_BYTES = 64 << 20
_SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
_WEIGHT_FILES = ("*.safetensors", "*.bin")
_PROMPT_KEYS = ("prompt", "messages", "template", "system", "chat")


def fingerprint_parts(job: Job, scan: Scan) -> dict[str, Any]:
    """The parts by name, as plain JSON values, so that a difference can be shown."""
    resolved = job.resolved()
    model, sampling = resolved["model"], resolved["sampling"]
    prompt = {key: resolved["input"][key] for key in _PROMPT_KEYS}
    return {
        "model": {
            "files": _identity(model["path"]),
            "revision": model["revision"],
            "dtype": model["dtype"],
        },
        "tokenizer": _identity(model["tokenizer"]) if model["tokenizer"] else None,
        "prompt": {**prompt, "on_overflow": resolved["on_overflow"]},
        "sampling": sampling,
        "input": {"rows": scan.rows, "ids": scan.fingerprint},
    }


def fingerprint(parts: Mapping[str, Any]) -> str:
    """One short text for all the parts."""
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """A line for each value that is not the same: `sampling.temperature: 0.0 -> 0.7`."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}: {before} -> {after}"


def _identity(path: str) -> str:
    """What a model or tokenizer is: a folder's contents wherever it lies, else the hub's name.

    Weights count by name and size: reading tens of gigabytes only to compare is not worth it.
    """
    folder = Path(path)
    if not folder.is_dir():
        return path
    digest = hashlib.sha256()
    for file in sorted({file for pattern in _SMALL_FILES for file in folder.glob(pattern)}):
        if file.stat().st_size <= _SMALL_FILE_BYTES:
            digest.update(f"{file.name}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    for file in sorted({file for pattern in _WEIGHT_FILES for file in folder.glob(pattern)}):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
    return f"sha256:{digest.hexdigest()[:32]}"
