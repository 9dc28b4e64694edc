"""Descriptors for reading files past the page cache, each file opened once."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from tightrun.runtime.slab_layout import DISK_GRAIN


class DirectFiles:
    """Opens files with O_DIRECT, and without where that is impossible; `notes` says so once."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._descriptors: dict[Path, int] = {}

    def descriptor(self, path: Path) -> int:
        """The file's descriptor, the same one at every call. Raises OSError."""
        if path not in self._descriptors:
            self._descriptors[path] = self._open(path)
        return self._descriptors[path]

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}

    def _open(self, path: Path) -> int:
        if flag := getattr(os, "O_DIRECT", 0):
            try:
                descriptor = os.open(path, os.O_RDONLY | flag)
            except OSError:
                pass  # the file system knows no such flag; whether the file opens is seen below
            else:
                if _reads(descriptor):
                    return descriptor
                os.close(descriptor)
        descriptor = os.open(path, os.O_RDONLY)
        if not self.notes:
            self.notes.append(
                f"the file system of {path.parent} has no direct reads: streamed weights pass "
                "through the page cache, which may take memory and time"
            )
        return descriptor


def _reads(descriptor: int) -> bool:
    """Whether an aligned read works; some file systems take the flag and refuse the read."""
    with mmap.mmap(-1, DISK_GRAIN) as page:
        try:
            os.preadv(descriptor, [page], 0)
        except OSError:
            return False
    return True
