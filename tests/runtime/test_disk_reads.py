"""Files straight into memory: whole, aligned, past the page cache; a short file is said."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tightrun.runtime.cpu_device import disk_link
from tightrun.runtime.device import FileRange, Move, Urgency
from tightrun.runtime.disk_reads import DiskReads
from tightrun.runtime.happenings import TransferFailedError
from tightrun.runtime.lane_log import LaneLog
from tightrun.runtime.links import Pace, ThreadLink
from tightrun.runtime.page_memory import map_pages

KIB, MIB = 1 << 10, 1 << 20
Opener = Callable[[bytes, int], int]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Makes a file of these bytes and opens it; skips where the disk refuses direct reads."""
    descriptors: list[int] = []

    def open_file(content: bytes, flags: int) -> int:
        path = tmp_path / f"file{len(descriptors)}"
        path.write_bytes(content)
        try:
            descriptors.append(os.open(path, os.O_RDONLY | flags))
        except OSError:
            pytest.skip("this file system refuses direct reads")
        os.fsync(descriptors[-1])
        return descriptors[-1]

    yield open_file
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture
def link() -> Iterator[ThreadLink]:
    link = disk_link(LaneLog(), Pace(), None, None)
    yield link
    link.close()


def content(nbytes: int) -> bytes:
    return os.urandom(nbytes)


def read(link: ThreadLink, descriptor: int, offset: int, nbytes: int) -> bytes:
    target = map_pages(nbytes)
    move = Move(target, FileRange(descriptor, offset, nbytes))
    link.send([move], Urgency.WEIGHTS, "weights 0 0").wait()
    return target.numpy().tobytes()


@pytest.mark.parametrize("flags", [os.O_DIRECT, 0], ids=["direct", "buffered"])
@pytest.mark.parametrize(
    ("size", "offset", "nbytes"),
    [
        (9 * MIB, 0, 9 * MIB),
        (9 * MIB, 4 * KIB, 5 * MIB + 4 * KIB),
        (5 * MIB + 123, 4 * MIB, MIB + 123),
        (100, 0, 100),
    ],
    ids=["whole", "inside", "tail", "tiny"],
)
def test_a_range_arrives_whole(
    opened: Opener, link: ThreadLink, flags: int, size: int, offset: int, nbytes: int
) -> None:
    written = content(size)
    found = read(link, opened(written, flags), offset, nbytes)
    assert found == written[offset : offset + nbytes]


def test_nothing_is_written_behind_the_target_at_the_files_end(
    opened: Opener, link: ThreadLink
) -> None:
    descriptor = opened(content(4 * KIB + 10), os.O_DIRECT)
    slot = map_pages(8 * KIB).fill_(7)
    move = Move(slot[: 4 * KIB + 10], FileRange(descriptor, 0, 4 * KIB + 10))
    link.send([move], Urgency.WEIGHTS, "weights").wait()
    assert (slot[4 * KIB + 10 :] == 7).all()


def test_short_reads_are_completed(
    opened: Opener, link: ThreadLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_read = os.preadv

    def a_grain_at_most(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        return whole_read(descriptor, [buffers[0][: 4 * KIB]], offset)

    monkeypatch.setattr(os, "preadv", a_grain_at_most)
    written = content(64 * KIB + 5)
    assert read(link, opened(written, os.O_DIRECT), 0, len(written)) == written


@pytest.mark.parametrize("flags", [os.O_DIRECT, 0], ids=["direct", "buffered"])
def test_a_file_cut_short_is_named(opened: Opener, link: ThreadLink, flags: int) -> None:
    descriptor = opened(content(MIB + 10), flags)
    with pytest.raises(TransferFailedError, match=r"file0 ends at byte 1,048,586.*complete file"):
        read(link, descriptor, 0, 2 * MIB)


@pytest.mark.parametrize("flags", [os.O_DIRECT, 0], ids=["direct", "buffered"])
def test_an_error_of_the_disk_is_raised(
    opened: Opener, link: ThreadLink, monkeypatch: pytest.MonkeyPatch, flags: int
) -> None:
    def torn(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", torn)
    with pytest.raises(TransferFailedError, match="Input/output error"):
        read(link, opened(content(MIB), flags), 0, MIB)


def test_where_direct_reading_is_refused_it_is_said_once_and_read_buffered(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_read = os.preadv
    descriptor = opened(written := content(12 * MIB), os.O_DIRECT)

    def refuses_direct(asked: int, buffers: list[memoryview], offset: int) -> int:
        if asked == descriptor:
            raise OSError(errno.EINVAL, "Invalid argument")
        return true_read(asked, buffers, offset)

    monkeypatch.setattr(os, "preadv", refuses_direct)
    said: list[str] = []
    link = disk_link(LaneLog(), Pace(), None, said.append)
    assert read(link, descriptor, 0, len(written)) == written
    link.close()
    assert len(said) == 1
    assert "page cache" in said[0]


@pytest.mark.parametrize("flags", [os.O_DIRECT, 0], ids=["direct", "buffered"])
def test_what_was_read_does_not_stay_in_the_page_cache(
    opened: Opener, link: ThreadLink, flags: int
) -> None:
    descriptor = opened(content(8 * MIB), flags)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    read(link, descriptor, 0, 8 * MIB)
    assert cached_bytes(descriptor, 8 * MIB) == 0


def test_a_direct_read_into_unaligned_memory_is_a_defect_of_ours(opened: Opener) -> None:
    descriptor = opened(content(8 * KIB), os.O_DIRECT)
    move = Move(map_pages(8 * KIB)[8 : 8 + 4 * KIB], FileRange(descriptor, 0, 4 * KIB))
    with pytest.raises(AssertionError, match="aligned memory"):
        DiskReads()(move, 0, 4 * KIB)


def cached_bytes(descriptor: int, nbytes: int) -> int:
    """How much of a file the page cache holds."""
    with mmap.mmap(descriptor, nbytes, flags=mmap.MAP_PRIVATE) as pages:
        held = (ctypes.c_ubyte * (nbytes // mmap.PAGESIZE))()
        first = ctypes.c_char.from_buffer(pages)
        failed = ctypes.CDLL(None).mincore(ctypes.byref(first), ctypes.c_size_t(nbytes), held)
        del first
    assert not failed
    return sum(1 for page in held if page & 1) * mmap.PAGESIZE
