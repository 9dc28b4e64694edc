"""From the job's paths (files, folders, globs, a saved dataset, "-") to the things to be read."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tightrun.io.input_types import InputError
from tightrun.io.remote import InputPath

STDIN_NAME = "-"
BOOKKEEPING = "_tightrun"
SUFFIXES = {
    "parquet": (".parquet",),
    "lines": (".jsonl", ".jsonl.gz", ".jsonl.zst"),
}

# What glob.escape makes of the three special characters.
_ESCAPED = re.compile(r"\[([*?[])\]")

Kind = Literal["parquet", "lines", "dataset", "stdin"]


@dataclass(frozen=True, slots=True)
class Found:
    """A thing to read; `name` is its path relative to the input's root, with forward slashes."""

    path: InputPath
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    kind: Kind


def find_sources(paths: Sequence[str], file_format: str, output: Path | None) -> list[Found]:
    """What `paths` name, each once, sorted bytewise by name; raises InputError if that is nothing.

    `file_format` is the job's input.format. Of folders and globs, only files of a known format
    are taken, and nothing from `output`; folders are read with all below them, except what begins
    with "." or "_". Names are relative to what the fixed parts of all paths have in common, so
    two files never share one.
    """
    roots: list[str] = []
    entries: dict[str, _Entry] = {}
    for path in paths:
        if path == STDIN_NAME:
            return [Found(Path(STDIN_NAME), STDIN_NAME, "stdin")]
        root, found = _entries(path, file_format, output)
        roots.append(root)
        entries.update((_absolute(entry.path), entry) for entry in found)
    if not entries:
        raise InputError(
            f"input.path: no input files in {', '.join(paths)}; {known_endings(file_format)}"
        )
    root = os.path.commonpath(roots)
    sources = [
        Found(entry.path, _relative_name(absolute, root), entry.kind)
        for absolute, entry in entries.items()
    ]
    return sorted(sources, key=lambda source: os.fsencode(source.name))


def _entries(path: str, file_format: str, output: Path | None) -> tuple[str, list[_Entry]]:
    here = Path(path)
    if here.is_dir():
        saved = _saved_dataset(here)
        if saved:
            return _absolute(here.parent), saved
        return _absolute(here), list(_in_folder(here, file_format, output))
    if here.exists():
        return _absolute(here.parent), [_Entry(here, _named_kind(here, file_format))]
    if glob.has_magic(path):
        return _fixed_part(path), list(_matches(path, file_format, output))
    raise InputError(f"input.path: {path} does not exist; {_nearest_folder(here)}")


def _saved_dataset(folder: Path) -> list[_Entry]:
    marks = (("dataset_info.json", "state.json"), ("dataset_dict.json",))
    is_saved = any(all((folder / name).is_file() for name in names) for names in marks)
    return [_Entry(folder, "dataset")] if is_saved else []


def _in_folder(folder: Path, file_format: str, output: Path | None) -> Iterator[_Entry]:
    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        status = Path(parent).stat()
        # A link may lead back up: each folder is entered once.
        looped = (status.st_dev, status.st_ino) in seen
        seen.add((status.st_dev, status.st_ino))
        if looped or _is_output(Path(parent), output):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        for name in files:
            kind = kind_of_name(name, file_format)
            if kind and not name.startswith((".", "_")):
                yield _Entry(Path(parent) / name, kind)


def _matches(pattern: str, file_format: str, output: Path | None) -> Iterator[_Entry]:
    matches = map(Path, glob.iglob(pattern, recursive=True))  # noqa: PTH207
    paths = [path for path in matches if not _is_ours(path, output)]
    folders = [path for path in paths if path.is_dir()]
    # A glob that finds folders only (part=*) means what is in them.
    in_them = len(folders) == len(paths)
    for path in folders:
        saved = _saved_dataset(path)
        yield from saved or (_in_folder(path, file_format, output) if in_them else ())
    for path in set(paths) - set(folders):
        known = kind_of_name(path.name, "auto") is not None
        kind = kind_of_name(path.name, file_format)
        if kind or not (known or file_format == "auto"):
            yield _Entry(path, _named_kind(path, file_format))


def kind_of_name(name: str, file_format: str) -> Kind | None:
    """What a file of this name holds, where its ending tells and `file_format` allows it."""
    lower = name.lower()
    if file_format in ("auto", "parquet") and lower.endswith(SUFFIXES["parquet"]):
        return "parquet"
    if file_format != "parquet" and lower.endswith(SUFFIXES["lines"]):
        return "lines"
    return None


def _named_kind(path: Path, file_format: str) -> Kind:
    """A file that the person named may have any name, once they say what it holds."""
    if not path.is_file():
        raise InputError(f"input.path: {path} is neither a file nor a folder; pipe it into '-'")
    if file_format != "auto":
        return "parquet" if file_format == "parquet" else "lines"
    kind = kind_of_name(path.name, file_format)
    if kind is None:
        raise InputError(
            f"input.path: {path}: its name does not tell the format; {known_endings('auto')}, "
            "or set input.format (jsonl: one JSON object a line)"
        )
    return kind


def _is_ours(path: Path, output: Path | None) -> bool:
    return BOOKKEEPING in path.parts or any(_is_output(at, output) for at in path.parents)


def _is_output(folder: Path, output: Path | None) -> bool:
    return output is not None and _absolute(folder) == _absolute(output)


def _relative_name(absolute: str, root: str) -> str:
    name = os.path.relpath(absolute, root)
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _fixed_part(pattern: str) -> str:
    """The folder above the first part of the pattern that matches more than one name."""
    fixed: list[str] = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(_ESCAPED.sub("", part)):
            break
        fixed.append(_ESCAPED.sub(r"\1", part))
    return _absolute(Path(*fixed))


def _absolute(path: Path) -> str:
    # Not resolve(): a file keeps the name it was given, wherever its link leads.
    return os.path.abspath(path)  # noqa: PTH100


def known_endings(file_format: str) -> str:
    """How the names of files end that are read."""
    kinds = {"auto": (*SUFFIXES["parquet"], *SUFFIXES["lines"]), "parquet": SUFFIXES["parquet"]}
    return "files end in " + ", ".join(kinds.get(file_format, SUFFIXES["lines"]))


def _nearest_folder(path: Path) -> str:
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    names = sorted(entry.name for entry in folder.iterdir())[:8]
    return f"{folder} holds {', '.join(names) or 'nothing'}"


def _raise(error: OSError) -> None:
    raise InputError(f"input.path: cannot read {error.filename}: {error.strerror}") from error
