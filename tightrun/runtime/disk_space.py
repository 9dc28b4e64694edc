"""How much a folder's file system can still take, and what it is mounted as."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tightrun.policies.hardware import Budget
from tightrun.runtime.mounts import mount_of, read_mounts

# File systems whose files lie in memory: what is written there is memory that is gone.
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs", "rootfs")


@dataclass(frozen=True, slots=True)
class Disk:
    """Where a folder lies: bytes `free` for us, the `kind` of file system and its mount point.

    `in_memory` says that files there are no disk at all, but host memory. `kind` is "unknown"
    and the point the folder itself where the system does not tell.
    """

    free: Budget
    kind: str
    point: str
    in_memory: bool


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def disk_of(
    folder: Path, root: Path = Path("/"), free_bytes: Callable[[Path], int] = _free_bytes
) -> Disk:
    """The disk that holds `folder`, or will once it is made. Raises OSError if none can be asked.

    `root` stands for the root folder of the system, where its mounts are read; `folder` is absolute
    in it. A quota counts as far as the file system shows it.
    """
    folder = folder.resolve()
    there = next(x for x in (folder, *folder.parents) if (root / str(x).lstrip("/")).is_dir())
    free = free_bytes(root / str(there).lstrip("/"))
    mount = mount_of(PurePosixPath(folder), read_mounts(root))
    kind, point = (mount.kind, str(mount.point)) if mount else ("unknown", str(there))
    in_memory = kind in IN_MEMORY
    words = f"free on {point} ({kind})"
    if in_memory:
        words += ", which is no disk: what is kept there takes host memory"
    return Disk(Budget(free, words), kind, point, in_memory)
