"""What a folder's file system can take, and what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime import recorded_systems as systems
from tests.runtime.recorded_systems import GIB, write
from tightrun.runtime.disk_space import Disk, disk_of
from tightrun.runtime.mounts import read_mounts


def disk(tmp_path: Path, folder: str) -> Disk:
    systems.systemd_v2(tmp_path)
    return disk_of(Path(folder), tmp_path, lambda _: 7 * GIB)


@pytest.mark.parametrize(
    ("folder", "kind", "point"),
    [
        ("/var/cache/tightrun", "ext4", "/"),
        ("/home/me/.cache/tightrun", "nfs4", "/home"),
        ("/homes", "ext4", "/"),
    ],
)
def test_the_innermost_mount_holds_a_folder(
    tmp_path: Path, folder: str, kind: str, point: str
) -> None:
    found = disk(tmp_path, folder)
    assert (found.kind, found.point, found.in_memory) == (kind, point, False)
    assert found.free.limit == f"free on {point} ({kind})"


def test_a_folder_in_memory_says_so(tmp_path: Path) -> None:
    found = disk(tmp_path, "/dev/shm/cache")
    assert found.in_memory
    assert "takes host memory" in found.free.limit


def test_what_is_free_is_asked_of_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "home/me").mkdir(parents=True)
    asked: list[Path] = []
    disk_of(Path("/home/me/.cache/tightrun"), tmp_path, lambda path: asked.append(path) or 5)
    assert asked == [tmp_path / "home/me"]


def test_without_mounts_the_kind_is_unknown(tmp_path: Path) -> None:
    assert disk_of(Path("/data"), tmp_path, lambda _: 5).kind == "unknown"


def test_this_machine_has_a_disk(tmp_path: Path) -> None:
    found = disk_of(tmp_path / "not" / "made")
    assert found.free.bytes > 0
    assert found.kind != "unknown"


def test_a_space_in_a_mount_point_is_read_as_one(tmp_path: Path) -> None:
    line = "9 1 8:1 / /mnt/my\\040disk rw - xfs /dev/sdb rw\n\nnonsense\n"
    (mount,) = read_mounts(write(tmp_path, {"proc/self/mountinfo": line}))
    assert str(mount.point) == "/mnt/my disk"
