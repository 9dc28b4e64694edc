"""What is mounted where, as /proc/self/mountinfo says (proc(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Mount:
    """A file system `kind` at `point`; `inner` is the folder of the file system that is seen
    there, `options` are the file system's own (for cgroup v1: its controllers)."""

    point: PurePosixPath
    inner: str
    kind: str
    options: frozenset[str]


def read_mounts(root: Path = Path("/")) -> list[Mount]:
    """All mounts of this process in the order of mounting; none where there is no such file."""
    try:
        lines = (root / "proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    return [mount for mount in map(_mount_of_line, lines) if mount is not None]


def mount_of(folder: PurePosixPath, mounts: list[Mount]) -> Mount | None:
    """The mount that an absolute `folder` lies on, None if none is known."""
    over = [m for m in mounts if m.point == folder or m.point in folder.parents]
    # Of several at one point the last hides the others.
    return max(reversed(over), key=lambda m: len(m.point.parts), default=None)


def _mount_of_line(line: str) -> Mount | None:
    before, dash, after = line.partition(" - ")
    front, back = before.split(" "), after.split(" ")
    if not dash or len(front) < 6 or len(back) < 3:
        return None
    options = frozenset(back[2].split(","))
    return Mount(PurePosixPath(_unescaped(front[4])), _unescaped(front[3]), back[0], options)


def _unescaped(name: str) -> str:
    """Spaces and the like stand as three octal digits in the file."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), name)
