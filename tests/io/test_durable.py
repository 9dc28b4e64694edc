"""The door to the disk: a whole file is there or not at all, and errors say where."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.io.faulty_disk import FaultyDisk
from tightrun.io.durable import OWNER_ONLY, Disk

CONTENT = [b"one", b"two" * 200_000, b"three"]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_file_has_its_name_only_when_all_of_it_is_there(tmp_path: Path) -> None:
    with Disk().whole(tmp_path / "table") as file:
        file.write(b"half")
        file.flush()
        assert files_in(tmp_path) == [".table.tmp"]
        file.write(b" and half")
    assert files_in(tmp_path) == ["table"]
    assert (tmp_path / "table").read_bytes() == b"half and half"


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def half() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        Disk().write_whole(tmp_path / "table", half())
    assert files_in(tmp_path) == []


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(tmp_path: Path) -> None:
    disk = FaultyDisk()
    disk.write_whole(tmp_path / "table", [b"x"])
    assert [name for name, _ in disk.done] == ["open", "write", "sync", "rename", "open", "sync"]


@pytest.mark.parametrize("operation", ["open", "write", "sync", "rename"])
def test_an_operation_that_fails_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, operation: str
) -> None:
    (tmp_path / "table").write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        FaultyDisk(0, only=operation).write_whole(tmp_path / "table", CONTENT)
    assert files_in(tmp_path) == ["table"]
    assert (tmp_path / "table").read_bytes() == b"old"


def test_an_error_of_the_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: .*\.table\.tmp"):
        FaultyDisk(0, only="write").write_whole(tmp_path / "table", CONTENT)


def test_short_writes_are_carried_on_to_the_end(tmp_path: Path) -> None:
    FaultyDisk().write_whole(tmp_path / "table", CONTENT)
    assert (tmp_path / "table").read_bytes() == b"".join(CONTENT)


def test_after_a_failed_write_nothing_more_is_written(tmp_path: Path) -> None:
    file = FaultyDisk(0, only="write").append(tmp_path / "log")
    file.write(b"lost")
    with pytest.raises(OSError, match="No space left"):
        file.flush()
    file.write(b"later")
    with pytest.raises(OSError, match="No space left"):
        file.flush()
    assert (tmp_path / "log").read_bytes() == b""


def test_after_a_failed_sync_the_file_is_not_trusted_again(tmp_path: Path) -> None:
    file = FaultyDisk(0, only="sync").append(tmp_path / "log")
    file.write(b"x")
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            file.sync()


def test_an_appended_file_goes_on_where_it_ended(tmp_path: Path) -> None:
    for word in (b"one", b"two"):
        file = Disk().append(tmp_path / "log")
        file.write(word)
        file.close()
    assert (tmp_path / "log").read_bytes() == b"onetwo"


def test_what_is_still_buffered_can_be_read(tmp_path: Path) -> None:
    file = Disk().append(tmp_path / "log")
    file.write(b"abcdef")
    assert file.read_at(2, 3) == b"cde"


def test_an_abandoned_file_writes_nothing_more(tmp_path: Path) -> None:
    file = Disk().append(tmp_path / "log")
    file.write(b"abc")
    file.abandon()
    file.close()
    assert (tmp_path / "log").read_bytes() == b""


def test_an_appended_file_is_its_owners_alone(tmp_path: Path) -> None:
    Disk().append(tmp_path / "log").close()
    assert (tmp_path / "log").stat().st_mode & 0o777 == OWNER_ONLY


def test_a_whole_file_has_the_mode_the_umask_leaves(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        Disk().write_whole(tmp_path / "table", [b"x"])
    finally:
        os.umask(umask)
    assert (tmp_path / "table").stat().st_mode & 0o777 == 0o640


def test_a_folder_comes_with_its_parents(tmp_path: Path) -> None:
    Disk().make_folder(tmp_path / "a" / "b" / "c", 0o700)
    assert (tmp_path / "a" / "b" / "c").stat().st_mode & 0o777 == 0o700
    Disk().make_folder(tmp_path / "a" / "b" / "c")


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    Disk().remove(tmp_path / "none")
    Disk().remove_folder(tmp_path / "none")


def test_a_folder_with_something_in_it_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    Disk().remove_folder(tmp_path / "a")
    assert (tmp_path / "a" / "file").exists()


def test_a_file_that_is_not_whole_yet_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    before = os.umask(0o027)
    try:
        with Disk().whole(path) as file:
            file.write(b"words of a prompt")
            file.flush()
            assert Disk.temporary(path).stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
