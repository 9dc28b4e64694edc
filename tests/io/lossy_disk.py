"""A disk that loses its power: what was not synced by then is gone, as are names and their ends."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tests.io.faulty_disk import PowerCut
from tightrun.io.durable import Data, Disk


class LossyDisk(Disk):
    """Works until the operation number `fail_at` (from 0), and then never again.

    `leave` then makes a folder of what was on the disk: of each file the content that was synced
    last, of each folder the names that were. That is the least a disk may keep; it is free to keep
    more, of which a kill is the extreme.
    """

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at
        self.count = 0
        self._contents: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}

    def adopt(self, root: Path) -> None:
        """What the folder `root` holds has been on the disk for long."""
        for folder, _, files in os.walk(root):
            self._remember(Path(folder))
            for name in files:
                path = Path(folder) / name
                self._contents[path.stat().st_ino] = path.read_bytes()

    def leave(self, root: Path, target: Path) -> None:
        """Makes at `target` what is left of the folder `root`."""
        target.mkdir(parents=True)
        for name, inode in self._names.get(root, {}).items():
            if (root / name) in self._names:
                self.leave(root / name, target / name)
            elif inode in self._contents:
                (target / name).write_bytes(self._contents[inode])
            elif inode >= 0:
                # The name is there, and nothing of what was to stand under it.
                (target / name).touch()

    def open(self, path: Path, flags: int, mode: int) -> int:
        self._step()
        is_new = not path.exists()
        fd = super().open(path, flags, mode)
        if is_new:
            self._contents.pop(os.fstat(fd).st_ino, None)
        return fd

    def write(self, fd: int, data: Data) -> int:
        self._step()
        return super().write(fd, data)

    def sync(self, fd: int) -> None:
        self._step()
        about, path = os.fstat(fd), Path(f"/proc/self/fd/{fd}")
        if stat.S_ISDIR(about.st_mode):
            self._remember(path.resolve())
        else:
            self._contents[about.st_ino] = path.read_bytes()

    def rename(self, old: Path, new: Path) -> None:
        self._step()
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self._step()
        super().remove(path)

    def truncate(self, path: Path, nbytes: int) -> None:
        self._step()
        super().truncate(path, nbytes)

    def make_folder(self, path: Path, mode: int = 0o777) -> None:
        if not path.is_dir():
            self._step()
        super().make_folder(path, mode)
        self._names.setdefault(path, {})

    def _remember(self, folder: Path) -> None:
        self._names[folder] = {
            entry.name: -1 if entry.is_dir() else entry.inode() for entry in os.scandir(folder)
        }

    def _step(self) -> None:
        self.count += 1
        if self.fail_at is not None and self.count > self.fail_at:
            raise PowerCut
