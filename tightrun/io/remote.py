"""Files that fsspec reaches by a URL (s3://, gs://, https://, hf://), read through in ranges.

Nothing of them is kept. Each read asks for just the bytes that are wanted, and asks again when the
network fails.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from tightrun.io.patience import patiently

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
# What changes with the content comes before what changes with the time of writing.
_CONTENT = ("ETag", "etag", "e_tag", "generation", "md5Hash", "content_md5", "Content-MD5")
_HUB_CONTENT = ("xet_hash", "blob_id")
_WRITTEN = ("LastModified", "Last-Modified", "last_modified", "updated", "mtime", "created")
_CHUNK_BYTES = 8 << 20


class UnreachableError(ValueError):
    """A URL of a kind that cannot be reached here; the message says what to do about it."""


def is_url(path: str) -> bool:
    """Whether `path` is for fsspec, and not for the local disk."""
    return "://" in path


def protocol_of(url: str) -> str:
    """The first protocol of a URL: s3 of s3://bucket/key."""
    return url.partition("://")[0]


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, which remembers no listing, and the path in it.

    Raises UnreachableError where a package is missing, or nobody knows the protocol.
    """
    protocol = protocol_of(url)
    # The hub's own file system cannot do without its listings; a commit never changes.
    options: dict[str, Any] = {} if protocol == "hf" else {"use_listings_cache": False}
    if protocol in ("file", "local"):
        options["auto_mkdir"] = True
    try:
        fs, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, **options)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        remedy = f"pip install 'tightrun[{extra}]'" if extra else "install the package it names"
        raise UnreachableError(
            f"{url}: {protocol}:// needs a package that is not installed ({error}); {remedy}"
        ) from error
    except ValueError as error:
        raise UnreachableError(f"{url}: {error}") from error
    return fs, path


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as it was when it was found. Any method may raise RemoteError, or OSError.

    `version` changes with the content (an ETag or the like), or else with the time of writing; it
    is empty where the store tells neither. `in_parts` says whether any range can be asked for;
    `size` [bytes] is 0 where the server does not tell it.
    """

    fs: Any
    path: str
    url: str
    size: int
    version: str
    in_parts: bool

    @classmethod
    def of(cls, fs: Any, path: str, url: str, info: Mapping[str, Any]) -> RemoteFile:
        """The file that fsspec's `info` tells of."""
        # Only servers of http may be unable to send a part.
        in_parts = bool(info.get("partial", protocol_of(url) not in ("http", "https")))
        size = info.get("size")
        return cls(fs, path, url, size or 0, version_of(info), in_parts and size is not None)

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.url.partition("?")[0]).name

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def stamp(self) -> tuple[int, int]:
        """The size, and 63 bits of the version."""
        digest = hashlib.blake2b(self.version.encode(), digest_size=8).digest()
        return self.size, int.from_bytes(digest) >> 1

    def now(self) -> RemoteFile:
        """The same file as it is now."""

        def ask() -> Mapping[str, Any]:
            self.fs.invalidate_cache()
            info: Mapping[str, Any] = self.fs.info(self.path)
            return info

        return RemoteFile.of(self.fs, self.path, self.url, patiently(ask, f"looking at {self}"))

    def open(self) -> io.RawIOBase:
        """The file as a stream that can seek; each read is a request of its own."""
        return _Ranges(self)

    def open_buffered(self) -> io.BufferedReader:
        """The file as a stream that is read in large pieces."""
        return io.BufferedReader(_Ranges(self), _CHUNK_BYTES)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes of a range that lies within the file."""

        def ask() -> bytes:
            data: bytes = self.fs.cat_file(self.path, start=start, end=stop)
            if len(data) != stop - start:
                raise OSError(f"{len(data):,} bytes came of {stop - start:,}")
            return data

        return patiently(ask, f"reading {self}")

    def chunks(self) -> Iterator[bytes]:
        """All of it, from front to back, also from a server that sends no parts."""
        if self.in_parts:
            for start in range(0, self.size, _CHUNK_BYTES):
                yield self.read(start, min(start + _CHUNK_BYTES, self.size))
            return
        stream = patiently(lambda: self.fs.open(self.path, "rb"), f"reading {self}")
        with stream:
            # What was read cannot be asked for again, so a failure here is the end of it.
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset of the hub at a commit, for `load_dataset`."""

    repo: str
    commit: str

    def __str__(self) -> str:
        return self.repo

    @property
    def name(self) -> str:
        """The last part of the name."""
        return self.repo.rpartition("/")[2]


InputPath = Path | RemoteFile | HubDataset


def stamp_of(path: InputPath) -> tuple[int, int]:
    """The size [bytes] of a file, and a number that another content would hardly have."""
    if isinstance(path, RemoteFile):
        return path.stamp
    assert isinstance(path, Path)
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def version_of(info: Mapping[str, Any]) -> str:
    """What tells one content of a file from another, by what its store says of it."""
    lfs = info.get("lfs")
    if lfs:
        return f"sha256 {lfs['sha256']}"
    for names in (_CONTENT, _HUB_CONTENT, _WRITTEN):
        for name in names:
            if info.get(name) is not None:
                return f"{name} {str(info[name]).strip(chr(34))}"
    return ""


class _Ranges(io.RawIOBase):
    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self._file.size)
        if stop <= self._at:
            return 0
        data = self._file.read(self._at, stop)
        view[: len(data)] = data
        self._at = stop
        return len(data)
