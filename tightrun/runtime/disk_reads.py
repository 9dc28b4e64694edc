"""Reads of files straight into memory, past the page cache.

What is read this way is read once a pass and is larger than memory: in the cache it would only
drive out what is needed. Sources: open(2), `O_DIRECT`; posix_fadvise(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path

from tightrun.runtime.device import FileRange, Move

GRAIN = 4096
# Measured on a virtual disk: four reads of 4 MiB in flight bring what more or larger ones bring.
READS_IN_FLIGHT = 4


class DiskReads:
    """Carries out the moves of a disk link. Any number of threads may read at once.

    A descriptor opened with O_DIRECT is read directly, another through the page cache, from which
    what was read is dropped at once. Where direct reading is refused, `notify` is told, once.
    """

    def __init__(self, notify: Callable[[str], None] | None = None) -> None:
        self._notify = notify
        self._lock = threading.Lock()

    def __call__(self, move: Move, begin: int, nbytes: int) -> None:
        """Read bytes [begin, begin + nbytes) of a move. Raises OSError; EOFError if they end."""
        source = move.source
        assert isinstance(source, FileRange)
        address, offset = move.target.data_ptr() + begin, source.offset + begin
        target = memoryview((ctypes.c_char * nbytes).from_address(address)).cast("B")
        if not fcntl.fcntl(source.descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            _read_buffered(source.descriptor, offset, target)
            return
        assert address % GRAIN == 0, "a direct read needs aligned memory"
        assert offset % GRAIN == 0, "a direct read begins at a multiple of the grain"
        try:
            _read_direct(source.descriptor, offset, target)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._say_refused()
            _read_again_buffered(source.descriptor, offset, target)

    def _say_refused(self) -> None:
        with self._lock:
            notify, self._notify = self._notify, None
        if notify is not None:
            notify(
                "the file system refuses direct reads: weights are read through the page cache and "
                "dropped from it, which is slower; a local disk (ext4, xfs) reads them directly"
            )


def _read_direct(descriptor: int, offset: int, target: memoryview) -> None:
    whole = len(target) // GRAIN * GRAIN
    _read_all(descriptor, offset, target[:whole])
    if whole == len(target):
        return
    # A direct read fills whole blocks: at the file's end it would write past the target.
    with mmap.mmap(-1, GRAIN) as page:
        with memoryview(page) as last:
            size = os.preadv(descriptor, [last], offset + whole)
        missing = len(target) - whole - size
        if missing > 0:
            raise _ended(descriptor, offset + whole + size, missing)
        target[whole:] = page[: len(target) - whole]


def _read_buffered(descriptor: int, offset: int, target: memoryview) -> None:
    _read_all(descriptor, offset, target)
    os.posix_fadvise(descriptor, offset, len(target), os.POSIX_FADV_DONTNEED)


def _read_again_buffered(descriptor: int, offset: int, target: memoryview) -> None:
    again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
    try:
        _read_buffered(again, offset, target)
    finally:
        os.close(again)


def _read_all(descriptor: int, offset: int, target: memoryview) -> None:
    read = 0
    while read < len(target):
        size = os.preadv(descriptor, [target[read:]], offset + read)
        if size == 0:
            raise _ended(descriptor, offset + read, len(target) - read)
        read += size


def _ended(descriptor: int, end: int, missing: int) -> EOFError:
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    return EOFError(
        f"{path} ends at byte {end:,}, {missing:,} bytes too early: it was cut short while it was "
        "in use, or not copied whole; put the complete file in its place"
    )
