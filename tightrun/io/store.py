"""The files of an output at a URL: listed, read, written whole, and moved aside.

A file is seen whole or not at all where the store has it so (s3://, gs://, hf://). Where it has
not, the seal of a shard, which is written after it, tells that the shard is whole.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tightrun.io.hub_commits import HubCommits, hub_folder
from tightrun.io.output_place import OutputError
from tightrun.io.patience import patiently
from tightrun.io.remote import RemoteFile, UnreachableError, file_system, protocol_of

_READ_ONLY = ("http", "https")


class Sending(NamedTuple):
    """A file that is to be written: its content, or where that lies, and its name in the store."""

    content: Path | bytes
    name: str


class Writer(Protocol):
    """How a store is written to. `cheap` says whether a small file may be written often."""

    cheap: bool

    def make(self) -> None:
        """Makes what is to hold the files, where that has to be there before."""

    def put(self, files: Sequence[Sending]) -> None:
        """Writes the files, each after those before it, or all of them at once."""

    def remove(self, names: Sequence[str]) -> None:
        """Removes files that are there."""

    def move(self, names: Sequence[str], ending: str) -> None:
        """Adds the ending to names of files and folders."""


class Store:
    """The folder at a URL; names in it are relative, with slashes.

    Raises OutputError where that cannot be written to. What the network does is tried again, then
    raised as RemoteError; that something may not be done is a PermissionError.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        if protocol_of(url) in _READ_ONLY or "::" in url:
            raise OutputError(f"output.path: {url} can be read only; name a folder or a store")
        try:
            self._fs, self._path = file_system(self.url)
        except UnreachableError as error:
            raise OutputError(f"output.path: {error}") from error
        self._path = self._path.rstrip("/")
        on_hub = hub_folder(self.url)
        self._writer: Writer = HubCommits(on_hub) if on_hub else _FileByFile(self._fs, self._path)

    def __str__(self) -> str:
        return self.url

    @property
    def cheap(self) -> bool:
        """Whether a small file may be written often."""
        return self._writer.cheap

    def make(self) -> None:
        """Makes what is to hold the files, where that has to be there before."""
        patiently(self._writer.make, f"making {self.url}")

    def sizes(self, folder: str) -> dict[str, int]:
        """The size [bytes] of each file below a folder of the store, by name; of none: empty."""

        def ask() -> Mapping[str, Any]:
            self._fs.invalidate_cache()
            try:
                found: Mapping[str, Any] = self._fs.find(self._full(folder), detail=True)
            except FileNotFoundError:
                return {}
            return found

        found = patiently(ask, f"listing {self.url}")
        names = {path: path.partition(f"{self._path}/")[2] for path in found}
        return {names[path]: info.get("size") or 0 for path, info in found.items() if names[path]}

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None if it is not there."""

        def ask() -> bytes | None:
            self._fs.invalidate_cache()
            try:
                data: bytes = self._fs.cat_file(self._full(name))
            except FileNotFoundError:
                return None
            return data

        return patiently(ask, f"reading {self.url}/{name}")

    def chunks(self, name: str) -> Iterator[bytes]:
        """The content of a file, from front to back. Raises FileNotFoundError."""
        path = self._full(name)
        url = f"{self.url}/{name}"
        info = patiently(lambda: self._fs.info(path), f"looking at {url}")
        return RemoteFile.of(self._fs, path, url, info).chunks()

    def put(self, files: Iterable[Sending]) -> None:
        """Writes files, each after those before it, or all of them at once."""
        sent = list(files)
        names = ", ".join(file.name for file in sent)
        patiently(lambda: self._writer.put(sent), f"writing {names} to {self.url}")

    def remove(self, names: Iterable[str]) -> None:
        """Removes files that are there."""
        there = list(names)
        if there:
            patiently(lambda: self._writer.remove(there), f"removing files of {self.url}")

    def move(self, names: Sequence[str], ending: str) -> None:
        """Adds the ending to names of files and folders; the empty name is that of all."""
        patiently(lambda: self._writer.move(names, ending), f"moving {self.url} aside")

    def _full(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path


class _FileByFile:
    """Writes each file by a call of its own, and looks whether it came whole."""

    cheap = True

    def __init__(self, fs: Any, path: str) -> None:
        self._fs, self._path = fs, path

    def make(self) -> None:
        pass

    def put(self, files: Sequence[Sending]) -> None:
        for file in files:
            path = f"{self._path}/{file.name}"
            if isinstance(file.content, bytes):
                self._fs.pipe_file(path, file.content)
                continue
            nbytes = file.content.stat().st_size
            self._fs.put_file(str(file.content), path)
            there = self._fs.info(path).get("size")
            if there != nbytes:
                raise OSError(f"{there} bytes arrived of {nbytes:,}")

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                self._fs.rm_file(f"{self._path}/{name}")
            except FileNotFoundError:
                continue

    def move(self, names: Sequence[str], ending: str) -> None:
        # Moving a folder as one would copy names that no file of the store has.
        for name in names:
            old = posixpath.join(self._path, name).rstrip("/")
            for path in self._files(old):
                self._fs.cp_file(path, old + ending + path[len(old) :])
                self._fs.rm_file(path)

    def _files(self, path: str) -> list[str]:
        self._fs.invalidate_cache()
        try:
            return [found for found in self._fs.find(path) if f"{found}/".startswith(f"{path}/")]
        except FileNotFoundError:
            return []
