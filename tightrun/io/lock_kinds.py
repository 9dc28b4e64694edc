"""Two ways to hold something that only one process may hold: by the kernel, and by files.

A kernel lock (flock(2)) ends with its process, whatever becomes of it, but is sure to be seen on
one machine only. A file is seen from every machine, but stays when its owner dies; so it says who
the owner is, and what the owner renews every so often is its sign of life.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import orjson

from tightrun.io.durable import OWNER_ONLY, Disk
from tightrun.io.owner import Here, Owner

# File systems of one machine, as mountinfo names them. On any other, files are what is safe.
_LOCAL = (
    *("aufs", "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "ntfs3"),
    *("overlay", "ramfs", "reiserfs", "tmpfs", "ubifs", "vfat", "xfs", "zfs"),
)
_POLL_S, _LONGEST_POLL_S = 0.02, 0.5


class Held(Protocol):
    """Something that this process holds until it says otherwise, or dies."""

    def release(self, record: Path) -> None:
        """Gives it up; `record` may have been moved with its folder."""


class Locks(Protocol):
    """One way to hold things.

    A thing is named by a path. What is held for long has a record at that path, which its owner
    writes and renews; a turn is held for a moment.
    """

    def turn(self, path: Path) -> AbstractContextManager[None]:
        """Waits until no other process has this turn, and has it for as long as the block."""

    def hold(self, record: Path) -> Held:
        """Holds what `record` is about; to be called within a turn, before it is written."""

    def lives(self, record: Path, owner: Owner) -> bool:
        """Whether the owner of a record still holds it."""


def locks_for(kind: str | None, here: Here, disk: Disk) -> Locks:
    """The locks for a file system of this kind (as in mountinfo); None where kinds are unknown."""
    return KernelLocks(disk) if kind is None or kind in _LOCAL else LockFiles(here, disk)


class KernelLocks:
    """Locks of the kernel, each on a file of its own that is never written."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    @contextmanager
    def turn(self, path: Path) -> Iterator[None]:
        fd = self._own(path)
        try:
            yield
        finally:
            self._disk.remove(path)
            _unlock(fd)

    def hold(self, record: Path) -> Held:
        return _HeldByKernel(self._disk, self._own(_lock_of(record)))

    def lives(self, record: Path, owner: Owner) -> bool:  # noqa: ARG002
        try:
            fd = os.open(_lock_of(record), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            # Shared, so that two who ask at once do not take each other for the owner.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def _own(self, path: Path) -> int:
        """Locks the file of that name; one that was removed while we waited is not it any more."""
        while True:
            fd = self._disk.open(path, os.O_RDWR | os.O_CREAT, OWNER_ONLY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if _is_at(fd, path):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)


@dataclass(frozen=True, slots=True)
class _HeldByKernel:
    _disk: Disk
    _fd: int

    def release(self, record: Path) -> None:
        self._disk.remove(_lock_of(record))
        _unlock(self._fd)


class LockFiles:
    """Files that say who their owner is. `clock` is in seconds since the epoch."""

    def __init__(
        self,
        here: Here,
        disk: Disk,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._here = here
        self._disk = disk
        self._clock = clock
        self._sleep = sleep
        # How far the clock that dates the files is ahead of ours.
        self._ahead_s = 0.0

    @contextmanager
    def turn(self, path: Path) -> Iterator[None]:
        mine = orjson.dumps({**asdict(self._here.me), "turn": uuid4().hex})
        poll_s = _POLL_S
        while not self._created(path, mine):
            self._break_if_dead(path)
            self._sleep(poll_s)
            poll_s = min(2 * poll_s, _LONGEST_POLL_S)
        try:
            self._ahead_s = path.stat().st_mtime - self._clock()
            yield
        finally:
            if _content(path) == mine:
                self._disk.remove(path)

    def hold(self, record: Path) -> Held:  # noqa: ARG002
        return _HeldByFile()

    def lives(self, record: Path, owner: Owner) -> bool:
        try:
            seen_s = record.stat().st_mtime
        except FileNotFoundError:
            return False
        silent_s = self._clock() + self._ahead_s - seen_s
        return silent_s < self._here.patience_s(owner)

    def _created(self, path: Path, content: bytes) -> bool:
        try:
            fd = self._disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        except FileExistsError:
            return False
        try:
            self._disk.write(fd, content)
            self._disk.sync(fd)
        finally:
            os.close(fd)
        return True

    def _break_if_dead(self, path: Path) -> None:
        """Puts away the turn of an owner that died within it."""
        content = _content(path)
        if content is None or self.lives(path, _owner_in(content)):
            return
        away = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
        with suppress(FileNotFoundError):
            self._disk.rename(path, away)
            # Somebody else may have been quicker, and what we hold now be a good one.
            if _content(away) != content:
                with suppress(FileExistsError):
                    os.link(away, path)
            self._disk.remove(away)


class _HeldByFile:
    """The record says it all: it is gone when its owner removes it."""

    def release(self, record: Path) -> None:
        pass


def _owner_in(content: bytes) -> Owner:
    """The owner of a turn; of one that was cut short nobody knows, and only its age can tell."""
    try:
        fields = orjson.loads(content)
    except orjson.JSONDecodeError:
        return Owner("", "", "", 0, 0)
    fields.pop("turn")
    return Owner(**fields)


def _lock_of(record: Path) -> Path:
    return record.with_suffix(".lock")


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _is_at(fd: int, path: Path) -> bool:
    try:
        there = path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return False
        raise
    mine = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _unlock(fd: int) -> None:
    # Said, and not only closed: a child that was forked meanwhile may have the file open too.
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
