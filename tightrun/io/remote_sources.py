"""From the job's URLs (files, folders, globs, datasets of the hub) to the files to be read."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from tightrun.io.hub import Revisions, dataset_files, without_commit
from tightrun.io.input_types import InputError
from tightrun.io.job_sections import InputSpec
from tightrun.io.patience import patiently
from tightrun.io.remote import HubDataset, RemoteFile, UnreachableError, file_system, protocol_of
from tightrun.io.sources import Found, kind_of_name, known_endings

_MAGIC = "*?["


class _Place(NamedTuple):
    """A file system of fsspec, and what a URL names in it."""

    fs: Any
    path: str
    url: str


def find_remote(
    urls: Sequence[str],
    file_format: str,
    output: str,
    revisions: Revisions,
    *,
    beside_local: bool = False,
) -> list[Found]:
    """The files that `urls` name, each once; raises InputError if one of them names none.

    Folders and globs are read as those of the local disk are. Names are relative to what the
    fixed parts of all URLs have in common; `beside_local` files keep their whole URLs as names.
    """
    roots: list[str] = []
    files: dict[str, RemoteFile] = {}
    for url in urls:
        try:
            fs, path = file_system(revisions.pinned(url))
        except UnreachableError as error:
            raise InputError(f"input.path: {error}") from error
        place = _Place(fs, path, url)
        root, found = _files(place, file_format, output)
        roots.append(root)
        files.update((file.url, file) for file in found)
    root = "" if beside_local else _common(roots)
    return [
        Found(
            file, _relative(url, root), kind_of_name(file.name, file_format) or _told(file_format)
        )
        for url, file in files.items()
    ]


def find_dataset(spec: InputSpec, output: str, revisions: Revisions) -> list[Found]:
    """The files of a dataset on the hub, or the dataset as one thing for `load_dataset`."""
    assert spec.dataset is not None
    dataset = HubDataset(spec.dataset, revisions.commit(spec.dataset, spec.revision))
    files = dataset_files(dataset, spec)
    if files is None:
        return [Found(dataset, dataset.name, "dataset")]
    urls, _ = files
    return find_remote(urls, "auto", output, revisions)


def _files(place: _Place, file_format: str, output: str) -> tuple[str, list[RemoteFile]]:
    url = place.url
    if _has_magic(url):
        found = patiently(lambda: place.fs.glob(place.path, detail=True), f"listing {url}")
        files = list(_taken(place, found, file_format, output, by_name=False))
        root = _fixed_part(without_commit(url))
    else:
        info = _info(place)
        root = posixpath.dirname(without_commit(url).rstrip("/"))
        if info.get("type") != "directory":
            _refuse_unknown(url, file_format)
            return root, [_file(place, place.path, info)]
        found = patiently(lambda: place.fs.find(place.path, detail=True), f"listing {url}")
        files = list(_taken(place, found, file_format, output, by_name=True))
        root = without_commit(url).rstrip("/")
    if not files:
        raise InputError(f"input.path: no input files in {url}; {known_endings(file_format)}")
    return root, files


def _info(place: _Place) -> Mapping[str, Any]:
    try:
        info: Mapping[str, Any] = patiently(
            lambda: place.fs.info(place.path), f"looking at {place.url}"
        )
        return info
    except FileNotFoundError as error:
        raise InputError(f"input.path: {place.url} does not exist") from error
    except PermissionError as error:
        raise InputError(f"input.path: {place.url} may not be read: {error}") from error


def _taken(
    place: _Place, found: Mapping[str, Any], file_format: str, output: str, *, by_name: bool
) -> Iterator[RemoteFile]:
    """The files of a listing whose format is known, and that are not of the output."""
    base = PurePosixPath(place.path)
    for path, info in sorted(found.items()):
        if info.get("type") == "directory":
            continue
        parts = PurePosixPath(path).relative_to(base).parts if by_name else ()
        file = _file(place, path, info)
        hidden = any(part.startswith((".", "_")) for part in parts)
        ours = file.url.startswith(output.rstrip("/") + "/")
        if not hidden and not ours and kind_of_name(file.name, file_format):
            yield file


def _file(place: _Place, path: str, info: Mapping[str, Any]) -> RemoteFile:
    url = place.url if path == place.path else str(place.fs.unstrip_protocol(path))
    return RemoteFile.of(place.fs, path, without_commit(url), info)


def _refuse_unknown(url: str, file_format: str) -> None:
    name = PurePosixPath(url.partition("?")[0]).name
    if file_format == "auto" and kind_of_name(name, file_format) is None:
        raise InputError(
            f"input.path: {url}: its name does not tell the format; {known_endings('auto')}, "
            "or set input.format (jsonl: one JSON object a line)"
        )


def _told(file_format: str) -> Any:
    return "parquet" if file_format == "parquet" else "lines"


def _has_magic(url: str) -> bool:
    """A question mark begins the query of a web address."""
    web = protocol_of(url) in ("http", "https")
    return any(sign in url for sign in (_MAGIC.replace("?", "") if web else _MAGIC))


def _fixed_part(url: str) -> str:
    """The folder above the first part of the URL that matches more than one name."""
    fixed: list[str] = []
    for part in url.split("/")[:-1]:
        if any(sign in part for sign in _MAGIC):
            break
        fixed.append(part)
    return "/".join(fixed)


def _common(roots: Sequence[str]) -> str:
    common = roots[0].split("/")
    for root in roots[1:]:
        pairs = zip(common, root.split("/"), strict=False)
        common = [a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return "/".join(common)


def _relative(url: str, root: str) -> str:
    return url[len(root) :].lstrip("/") if root and url.startswith(root + "/") else url
