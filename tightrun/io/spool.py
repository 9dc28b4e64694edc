"""Copies of what can be read only once: standard input, compressed files, lines from a network.

A copy is a plain file of lines, so that it can be scanned, read from any row, and read again by
a run that resumes. Copies are bounded by disk space: a few bytes can decompress to anything.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import pyarrow as pa

from tightrun.io.durable import OWNER_ONLY, Disk
from tightrun.io.input_types import InputError, UnkeptError
from tightrun.io.remote import RemoteFile

Compression = Literal["gzip", "zstd"]

_MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_TOOLS = {"gzip": "gzip -dc", "zstd": "zstd -dc"}
_CHUNK_BYTES = 1 << 20
_LEAVE_FREE = 0.1


_ENDINGS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}


def compression_of(path: Path) -> Compression | None:
    """How a file is compressed, by its name and else by its first bytes."""
    if path.suffix.lower() in _ENDINGS:
        return _ENDINGS[path.suffix.lower()]
    with path.open("rb") as file:
        return _magic(file.read(4))


class Spool:
    """The folder of the copies; a tenth of what is free on its disk stays free."""

    def __init__(
        self,
        folder: Path,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._folder = folder
        self._disk = Disk()
        self._free_bytes = free_bytes

    def standard_input(self, stream: BinaryIO | None) -> Path:
        """A copy of the stream; the copy of an earlier run if the stream has nothing to say."""
        target = self._folder / "stdin.jsonl"
        if stream is None or stream.isatty():
            if target.exists():
                return target
            raise InputError(
                "input.path is '-', but nothing is piped into standard input; "
                "try: tightrun job.yaml < rows.jsonl"
            )
        first = stream.read(_CHUNK_BYTES)
        if not first and target.exists():
            return target
        kind = _magic(first)
        if kind:
            tool = f"{_TOOLS[kind]} FILE | tightrun …"
            raise InputError(f"standard input is {kind} data; decompress it first: {tool}")
        self._write(target, _chunks(stream, first), "standard input")
        return target

    def decompressed(self, path: Path, compression: Compression) -> Path:
        """A decompressed copy of `path`, made anew only if the file has changed since."""
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns)
        return self._kept(path, stamp, ".jsonl", lambda: self._unpacked(path, compression))

    def fetched(self, file: RemoteFile) -> Path:
        """A copy of a file, decompressed by its name, made anew only if it has changed since."""
        compression = _ENDINGS.get(file.suffix.lower())
        if compression is None:
            return self._kept(file, file.stamp, file.suffix, file.chunks)
        stream = file.open_buffered()
        return self._kept(
            file, file.stamp, ".jsonl", lambda: self._unpacked(file, compression, stream)
        )

    def _kept(
        self,
        path: Path | RemoteFile,
        stamp: tuple[int, int],
        suffix: str,
        chunks: Callable[[], Iterator[bytes]],
    ) -> Path:
        stem = hashlib.blake2b(os.fsencode(str(path)), digest_size=8).hexdigest()
        target = self._folder / f"{stem}-{stamp[0]}-{stamp[1]}{suffix}"
        if target.exists():
            return target
        for stale in self._folder.glob(f"{stem}-*"):
            self._disk.remove(stale)
        self._write(target, chunks(), str(path))
        return target

    def _unpacked(
        self, path: Path | RemoteFile, compression: Compression, stream: BinaryIO | None = None
    ) -> Iterator[bytes]:
        try:
            with pa.input_stream(stream or str(path), compression=compression) as unpacked:
                yield from _chunks(unpacked, b"")
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path} is not a whole {compression} file: {error}") from error

    def _write(self, target: Path, chunks: Iterator[bytes], name: str) -> None:
        size = 0
        try:
            self._disk.make_folder(self._folder)
            allowed = int(self._free_bytes(self._folder) * (1 - _LEAVE_FREE))
            with self._disk.whole(target, OWNER_ONLY) as file:
                for chunk in chunks:
                    size += len(chunk)
                    if size > allowed:
                        raise InputError(self._too_large(name, allowed))
                    file.write(chunk)
        except OSError as error:
            why = f"{name} cannot be copied to {target}: {error.strerror}"
            raise UnkeptError(f"{why}; make room there, or put output.path elsewhere") from error

    def _too_large(self, name: str, allowed: int) -> str:
        return (
            f"{name} holds more than the {allowed / 2**30:,.1f} GiB that may be used in "
            f"{self._folder}, where it is kept decompressed; free some space there, "
            "or put output.path on a larger disk"
        )


def _magic(first: bytes) -> Compression | None:
    return next((kind for magic, kind in _MAGIC.items() if first.startswith(magic)), None)


def _chunks(stream: BinaryIO | pa.NativeFile, first: bytes) -> Iterator[bytes]:
    chunk = first or stream.read(_CHUNK_BYTES)
    while chunk:
        yield chunk
        chunk = stream.read(_CHUNK_BYTES)
