"""Layers that must be converted are written once, whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.parity.families import RUN
from tests.parity.tiny_models import save_tiny
from tests.runtime.skeletons import fill_layers, opened, rewritten
from tightrun.runtime import direct_files, skeleton
from tightrun.runtime.direct_files import DirectFiles
from tightrun.runtime.model import ModelRefusedError


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint") / "mixtral", *RUN["mixtral"])


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def written(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_converted_layer_is_written_once(
    mixtral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(mixtral) as first:
        fill_layers(first, "disk", tmp_path)
    before = written(tmp_path)
    assert len(before) == 3

    def refuse(*_: Any) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(skeleton, "fill_layer", refuse)
    with opened(mixtral) as second:
        fill_layers(second, "disk", tmp_path)
    assert written(tmp_path) == before


def test_another_checkpoint_has_slabs_of_its_own(mixtral: Path, tmp_path: Path) -> None:
    other = rewritten(mixtral, tmp_path / "other", lambda t: {k: v + 1 for k, v in t.items()})
    for folder in (mixtral, other):
        with opened(folder) as each:
            fill_layers(each, "disk", tmp_path / "spilled")
    assert len(written(tmp_path / "spilled")) == 6


def test_a_slab_of_the_wrong_size_is_written_again(mixtral: Path, tmp_path: Path) -> None:
    with opened(mixtral) as first:
        fill_layers(first, "disk", tmp_path)
    for name in written(tmp_path):
        os.truncate(name, 4096)
    with opened(mixtral) as second:
        fill_layers(second, "disk", tmp_path)
        assert all(p.stat().st_size == second.slab_bytes(0) for p in tmp_path.rglob("*.slab"))


def test_a_full_disk_is_told_with_the_sum_and_leaves_nothing(
    mixtral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with opened(mixtral) as each:
        wanted = f"{each.slab_bytes(0):,} bytes of converted weights.*Make room there"
        with pytest.raises(ModelRefusedError, match=wanted):
            each.slab(0, tmp_path)
    assert written(tmp_path) == {}


def test_a_folder_that_cannot_be_made_is_told(mixtral: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with opened(mixtral) as each, pytest.raises(ModelRefusedError, match="Name another folder"):
        each.slab(0, tmp_path / "file")


def test_a_file_is_opened_once(mixtral: Path) -> None:
    files = DirectFiles()
    path = mixtral / "model.safetensors"
    assert files.descriptor(path) == files.descriptor(path)
    files.close()


def test_without_direct_reads_files_are_read_through_the_cache_and_it_is_said_once(
    mixtral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_files, "_reads", lambda _descriptor: False)
    with opened(mixtral) as each:
        fill_layers(each, "disk", tmp_path)
        assert len(each.notes) == 1
        assert "no direct reads" in each.notes[0]


def test_closing_closes_every_file(mixtral: Path, tmp_path: Path) -> None:
    before = open_files()
    with opened(mixtral) as each:
        fill_layers(each, "disk", tmp_path)
        assert open_files() > before
    assert open_files() == before
