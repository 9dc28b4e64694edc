"""Checksummed frames: how records stand in a file, so that a torn or damaged one is known as such.

The file begins with `MAGIC`; then come frames: length (uint32) and CRC-32 (uint32) of the body,
little endian, then the body: one byte that says its kind, and the payload. The first frame that is
not good ends the file for a reader: what stands behind it can no longer be told apart.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAGIC = b"tightrun journal 2\n"
ABOUT = b"H"
_HEAD = struct.Struct("<II")
_READ_BYTES = 1 << 20


class Frame(NamedTuple):
    """A good frame: what it says, and where it stands with its head."""

    kind: bytes
    payload: bytes
    offset: int
    nbytes: int


def pack_frame(kind: bytes, *parts: bytes) -> bytes:
    """One frame around a payload, which may come in parts."""
    body = b"".join((kind, *parts))
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def unpack_frame(frame: bytes) -> bytes | None:
    """The body of a frame (kind and payload); None when it is cut short or damaged."""
    if len(frame) < _HEAD.size:
        return None
    length, crc = _HEAD.unpack_from(frame)
    body = frame[_HEAD.size : _HEAD.size + length]
    return body if body and len(body) == length and zlib.crc32(body) == crc else None


class FrameFile:
    """The frames of a file, read once and in order; bounded memory.

    After the reading, `good_bytes` is where the first frame that is not good begins, and
    `complaint` what a person should know of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.good_bytes = 0
        self._torn = False

    def __iter__(self) -> Iterator[Frame]:
        with self.path.open("rb", buffering=_READ_BYTES) as file:
            start = file.read(len(MAGIC))
            if start != MAGIC:
                self._torn = MAGIC.startswith(start)
                return
            self.good_bytes = len(MAGIC)
            while self.good_bytes < self.size:
                head = file.read(_HEAD.size)
                length, crc = _HEAD.unpack(head) if len(head) == _HEAD.size else (self.size, 0)
                nbytes = _HEAD.size + length
                if self.good_bytes + nbytes > self.size:
                    self._torn = True
                    return
                body = file.read(length)
                if not length or zlib.crc32(body) != crc:
                    # A file may have grown, and what was to fill it never come.
                    self._torn = not length and not crc and not any(file.read(_READ_BYTES))
                    return
                yield Frame(body[:1], body[1:], self.good_bytes, nbytes)
                self.good_bytes += nbytes

    @property
    def complaint(self) -> str | None:
        """What is wrong with the file; None if all of it is good."""
        bad = self.size - self.good_bytes
        if not bad:
            return None
        if self._torn:
            return f"{self.path.name}: a crash cut the last record short; its {bad:,} bytes go"
        return (
            f"{self.path.name} is damaged at byte {self.good_bytes:,}: it is not trusted from "
            "there on"
        )
