"""The one door through which bytes reach a disk.

A file is either *whole* (written under a name beginning with ".", synced, renamed, its folder
synced: a reader sees all of it or nothing) or *append-only* (what was synced stays; a torn tail
is for the reader to recognise). Whoever writes takes a `Disk`, so that a test can pass one that
fails at any given operation, or that forgets what was not synced. Reading needs no door.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

Data = bytes | bytearray | memoryview

OPEN_TO_UMASK = 0o666
OWNER_ONLY = 0o600
_BUFFER_BYTES = 256 * 1024
# Some network file systems cannot sync a folder; there a rename is as durable as it gets.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


class Disk:
    """Folders and files of the local disk. Every method may raise `OSError`."""

    # The system calls, one method each: what a test overrides to make the k-th of them fail.

    def open(self, path: Path, flags: int, mode: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def write(self, fd: int, data: Data) -> int:
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        os.fsync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def truncate(self, path: Path, nbytes: int) -> None:
        """Cuts a file that is longer; what is left of it is synced by whoever writes on."""
        if path.stat().st_size > nbytes:
            os.truncate(path, nbytes)

    def rename(self, old: Path, new: Path) -> None:
        """Renames a file or folder, replacing a file of that name; both folders are synced."""
        old.replace(new)
        self.sync_folder(new.parent)
        if old.parent != new.parent:
            self.sync_folder(old.parent)

    def remove(self, path: Path) -> None:
        """Removes a file; one that is not there is no error."""
        path.unlink(missing_ok=True)

    def remove_folder(self, path: Path) -> None:
        """Removes an empty folder; one that is not there, or not empty, is left as it is."""
        try:
            path.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise

    def sync_folder(self, path: Path) -> None:
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY, 0)
        try:
            self.sync(fd)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise
        finally:
            self.close(fd)

    def make_folder(self, path: Path, mode: int = 0o777) -> None:
        """Makes a folder and its missing parents; one that is there already is no error."""
        if path.is_dir():
            return
        self.make_folder(path.parent)
        with suppress(FileExistsError):
            path.mkdir(mode)
        self.sync_folder(path.parent)

    # What the writers use.

    @staticmethod
    def temporary(path: Path) -> Path:
        """The name that a whole file has until all of it is there."""
        return path.with_name(f".{path.name}.tmp")

    @contextmanager
    def whole(self, path: Path, mode: int = OPEN_TO_UMASK) -> Iterator[DiskFile]:
        """A file to write; it appears under `path` when the block ends well, else not at all.

        Until then it is its owner's alone, whatever `mode` it gets.
        """
        temporary = self.temporary(path)
        file = DiskFile(self, temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, OWNER_ONLY)
        try:
            yield file
            file.set_mode(mode & ~_umask())
            file.sync()
            file.close()
            self.rename(temporary, path)
        except BaseException:
            file.abandon()
            # The failure that brought us here is the one to tell, not that of cleaning up.
            with suppress(OSError):
                self.remove(temporary)
            raise

    def write_whole(self, path: Path, chunks: Iterable[Data], mode: int = OPEN_TO_UMASK) -> None:
        """Writes a small file whole."""
        with self.whole(path, mode) as file:
            for chunk in chunks:
                file.write(chunk)

    def append(self, path: Path, mode: int = OWNER_ONLY) -> DiskFile:
        """Opens a file to append to, new or as it stands; its first sync is of its name too."""
        is_new = not path.exists()
        return DiskFile(self, path, os.O_RDWR | os.O_CREAT | os.O_APPEND, mode, is_new=is_new)


class DiskFile:
    """A file being written: a buffer, and reads of what was written. Not thread-safe.

    It has the methods pyarrow asks of a Python file. `crc32` is that of all that was written here.
    After a failed write nothing more reaches the disk, because what has arrived is no longer known.
    """

    def __init__(
        self, disk: Disk, path: Path, flags: int, mode: int, *, is_new: bool = False
    ) -> None:
        self.path = path
        self.crc32 = 0
        self._name_to_sync = is_new
        self._disk = disk
        self._fd = disk.open(path, flags, mode)
        self._written = os.fstat(self._fd).st_size
        self._buffer = bytearray()
        self._failure: BaseException | None = None
        self.closed = False

    @property
    def size(self) -> int:
        """Bytes so far, those in the buffer included."""
        return self._written + len(self._buffer)

    def tell(self) -> int:
        return self.size

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def write(self, data: Data) -> int:
        view = memoryview(data).cast("B")
        self.crc32 = zlib.crc32(view, self.crc32)
        self._buffer += view
        if len(self._buffer) >= _BUFFER_BYTES:
            self.flush()
        return view.nbytes

    def flush(self) -> None:
        """Hands the buffer to the operating system."""
        self._check()
        rest = memoryview(self._buffer)
        self._buffer = bytearray()
        try:
            while rest:
                done = self._disk.write(self._fd, rest)
                self._written += done
                rest = rest[done:]
        except BaseException as error:
            self._fail(error)

    def sync(self) -> None:
        """Returns when all that was written is on the disk."""
        self.flush()
        try:
            self._disk.sync(self._fd)
            if self._name_to_sync:
                self._disk.sync_folder(self.path.parent)
                self._name_to_sync = False
        except BaseException as error:
            # After a failed fsync the kernel may have dropped the pages: never try it again.
            self._fail(error)

    def set_mode(self, mode: int) -> None:
        """Who may read it from now on; file systems without modes take no notice."""
        with suppress(PermissionError):
            os.fchmod(self._fd, mode)

    def read_at(self, offset: int, nbytes: int) -> bytes:
        """Bytes that were written earlier."""
        if offset + nbytes > self._written:
            self.flush()
        data = os.pread(self._fd, nbytes, offset)
        assert len(data) == nbytes, f"{self.path}: {nbytes} bytes at {offset} are not there"
        return data

    def close(self) -> None:
        """Flushes and closes; closing again does nothing."""
        if self.closed:
            return
        try:
            self.flush()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Closes without writing what the buffer still holds."""
        if not self.closed:
            self.closed = True
            self._buffer.clear()
            self._disk.close(self._fd)

    def _check(self) -> None:
        assert not self.closed, f"{self.path} is closed"
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: BaseException) -> NoReturn:
        """Remembers and raises the error; one of the disk with the path, or it says too little."""
        self._failure = error
        if isinstance(error, OSError) and error.errno is not None:
            self._failure = OSError(error.errno, error.strerror, str(self.path))
            raise self._failure from error
        raise error


def _umask() -> int:
    """What the process keeps from others. Asking the system means setting it, which no thread may
    see: Linux tells it in a file."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0o022
    words = status.partition("Umask:")[2].split(maxsplit=1)
    return int(words[0], 8) if words else 0o022
