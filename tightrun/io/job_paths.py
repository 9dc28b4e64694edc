"""Relative local paths of a job file, resolved against the folder of the file.

The folder travels as the validation context `{"base": Path, "home": str | None}`; without
one, a path stays as it is given.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationInfo

STDIN = "-"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def is_local(path: str) -> bool:
    """False for standard input and for URLs (`s3://...`, `zip://...::s3://...`)."""
    return path != STDIN and "://" not in path


def local_input(path: str, info: ValidationInfo) -> str:
    """An input path or glob as an absolute one; a folder's own brackets do not match."""
    base = _base(info.context)
    if base is None or not is_local(path):
        return path
    folder = glob.escape(str(base)) if glob.has_magic(path) else str(base)
    return str(Path(folder) / _expand_home(path, info.context))


def local_output(path: str, info: ValidationInfo) -> str:
    """An output path as an absolute one."""
    if path == STDIN:
        raise ValueError("output cannot go to standard output; write a folder such as out/")
    base = _base(info.context)
    if base is None or not is_local(path):
        return path
    return str(base / _expand_home(path, info.context))


def model_or_hub_id(name: str, info: ValidationInfo) -> str:
    """An existing folder as an absolute path, else a name on the Hugging Face hub as it is."""
    base = _base(info.context)
    if base is None:
        return name
    folder = base / _expand_home(name, info.context)
    if folder.is_dir():
        return str(folder)
    if folder.is_file():
        raise ValueError(f"{folder} is a file; name the folder that holds it")
    if name.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(name):
        raise ValueError(f"there is no folder {folder}, and {name!r} is no name on the hub")
    return name


def _base(context: Any) -> Path | None:
    return context["base"] if context else None


def _expand_home(path: str, context: Any) -> str:
    home = context.get("home")
    return home + path[1:] if home and (path == "~" or path.startswith("~/")) else path
