"""Disks that a whole run is given in place of its own."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tightrun.io.durable import Data, Disk

# What each trouble fails: a full disk still truncates, removes and syncs.
_FAILS = {
    "ENOSPC": {"open", "write", "make_folder"},
    "EROFS": {"open", "truncate", "rename", "remove", "make_folder", "remove_folder"},
    "EACCES": {"open", "rename", "remove", "make_folder", "remove_folder"},
    "EIO": {"open", "write", "sync", "truncate", "rename", "remove", "make_folder"},
}


def use_disk(disk: Disk) -> None:
    """Every `Disk()` of this process is this one from now on."""

    def new(cls: type[Disk], *_args: object, **_kwargs: object) -> Disk:
        return disk if cls is Disk else object.__new__(cls)

    # What `Disk()` returns is initialised again; whoever is given here is that already.
    setattr(type(disk), "__init__", lambda *_args: None)  # noqa: B010
    setattr(Disk, "__new__", new)  # noqa: B010


class FailingDisk(Disk):
    """Fails from the `nth` operation that its trouble concerns on; with `once`, only that one.

    `disk` is the trouble, by the name of its error number.
    """

    def __init__(self, misfortune: Mapping[str, Any]) -> None:
        self._trouble = str(misfortune["disk"])
        self._nth = int(misfortune["nth"])
        self._once = bool(misfortune.get("once"))
        self._count = 0
        self._lock = threading.Lock()

    def _step(self, name: str, path: Path) -> None:
        if name not in _FAILS[self._trouble]:
            return
        with self._lock:
            self._count += 1
            fails = self._count == self._nth or (self._count > self._nth and not self._once)
        if fails:
            number = getattr(errno, self._trouble)
            raise OSError(number, os.strerror(number), str(path))

    def open(self, path: Path, flags: int, mode: int) -> int:
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        if writes and (self._trouble != "ENOSPC" or not path.exists()):
            self._step("open", path)
        return super().open(path, flags, mode)

    def write(self, fd: int, data: Data) -> int:
        self._step("write", Path(f"/proc/self/fd/{fd}").readlink())
        return super().write(fd, data)

    def sync(self, fd: int) -> None:
        self._step("sync", Path(f"/proc/self/fd/{fd}").readlink())
        super().sync(fd)

    def truncate(self, path: Path, nbytes: int) -> None:
        self._step("truncate", path)
        super().truncate(path, nbytes)

    def rename(self, old: Path, new: Path) -> None:
        self._step("rename", new)
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self._step("remove", path)
        super().remove(path)

    def remove_folder(self, path: Path) -> None:
        self._step("remove_folder", path)
        super().remove_folder(path)

    def make_folder(self, path: Path, mode: int = 0o777) -> None:
        if not path.is_dir():
            self._step("make_folder", path)
        super().make_folder(path, mode)
