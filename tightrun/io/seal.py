"""What is noted of a shard when it gets its name, so that a later run can tell whether it is whole.

A shard without its seal, or that no longer is what its seal says, does not count. The seal is
written after the shard and before its journal goes, so one of the two always has the rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from tightrun.io.durable import OWNER_ONLY, Disk
from tightrun.io.frames import MAGIC, FrameFile, pack_frame

_SEAL = b"S"
_PIECE_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file, and their CRC-32."""

    nbytes: int = 0
    crc32: int = 0


@dataclass(frozen=True, slots=True)
class Seal:
    """Whose rows a shard has, how many of them ended with each error, and its content.

    `failed` is the content of the file of its failed rows, where they have one of their own.
    """

    fingerprint: str
    first_row: int
    rows: int
    errors: Mapping[str, int]
    content: Content
    failed: Content = Content()

    def write(self, disk: Disk, path: Path) -> None:
        """Writes the seal whole; afterwards the shard is done."""
        disk.write_whole(path, [MAGIC, pack_frame(_SEAL, orjson.dumps(asdict(self)))], OWNER_ONLY)


def read_seal(path: Path) -> Seal | None:
    """The seal at `path`; None if it is damaged, so that nothing it says can be trusted."""
    file = FrameFile(path)
    frames = list(file)
    if file.complaint or len(frames) != 1 or frames[0].kind != _SEAL:
        return None
    fields = orjson.loads(frames[0].payload)
    contents = {name: Content(**fields[name]) for name in ("content", "failed")}
    return Seal(**{**fields, **contents})


def content_of(path: Path, start: int = 0, nbytes: int | None = None) -> Content:
    """The content of a file, or of `nbytes` of it from `start` on; fewer if it ends before."""
    crc = done = 0
    if nbytes == 0:
        return Content()
    with path.open("rb") as file:
        file.seek(start)
        while nbytes is None or done < nbytes:
            piece = file.read(_PIECE_BYTES if nbytes is None else min(_PIECE_BYTES, nbytes - done))
            if not piece:
                break
            crc, done = zlib.crc32(piece, crc), done + len(piece)
    return Content(done, crc)
