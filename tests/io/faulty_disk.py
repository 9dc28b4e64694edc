"""A disk that fails when it is told to, and one that dies."""

from __future__ import annotations

import errno
from pathlib import Path

from tightrun.io.durable import Data, Disk


class PowerCut(BaseException):
    """The process is gone: nothing that it still tries has any effect."""


class FaultyDisk(Disk):
    """Fails the operation number `fail_at` (from 0) that changes the disk, then works again.

    With `dies`, every operation from there on fails: what is on the disk then is what a crash
    leaves. `done` names the operations so far.
    """

    def __init__(
        self, fail_at: int | None = None, *, dies: bool = False, only: str | None = None
    ) -> None:
        self.fail_at = fail_at
        self.dies = dies
        self.only = only
        self.done: list[tuple[str, str]] = []

    @property
    def count(self) -> int:
        """Operations so far, of the one kind if only that may fail."""
        return sum(self.only in (None, name) for name, _ in self.done)

    def _step(self, name: str, what: object) -> None:
        number = self.count
        self.done.append((name, str(what)))
        if self.fail_at is None or self.only not in (None, name):
            return
        if self.dies and number >= self.fail_at:
            raise PowerCut
        if number == self.fail_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    def open(self, path: Path, flags: int, mode: int) -> int:
        self._step("open", path)
        return super().open(path, flags, mode)

    def write(self, fd: int, data: Data) -> int:
        # A short write is no error, and a crash may leave it at that.
        self._step("write", len(data))
        whole = memoryview(data)
        return super().write(fd, whole[: len(whole) // 2] if len(whole) > 1_000 else whole)

    def sync(self, fd: int) -> None:
        self._step("sync", fd)

    def rename(self, old: Path, new: Path) -> None:
        self._step("rename", new)
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self._step("remove", path)
        super().remove(path)

    def make_folder(self, path: Path, mode: int = 0o777) -> None:
        if not path.is_dir():
            self._step("make_folder", path)
        super().make_folder(path, mode)
