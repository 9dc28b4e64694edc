"""Shards joined into one file: in order, whole or not at all, nothing left over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.io.faulty_disk import FaultyDisk
from tightrun.io.durable import Disk
from tightrun.io.output_place import OutputPlace
from tightrun.io.single_file import join_shards


def made_place(folder: Path) -> OutputPlace:
    place = OutputPlace.of(folder / "r.jsonl")
    place.data.mkdir(parents=True)
    for index in range(3):
        place.shard(index, ".jsonl").write_text(f"row {index}\n" * 2)
        errors = place.shard_errors(index)
        assert errors is not None
        errors.write_text("failed\n" if index == 1 else "")
    return place


def test_shards_are_joined_in_order_and_removed(tmp_path: Path) -> None:
    place = made_place(tmp_path)
    join_shards(Disk(), place, 3, ".jsonl", any_failed=True)
    assert place.target.read_text() == "row 0\nrow 0\nrow 1\nrow 1\nrow 2\nrow 2\n"
    assert (tmp_path / "r_errors.jsonl").read_text() == "failed\n"
    assert not place.data.exists()


def test_when_joining_fails_the_shards_are_still_there(tmp_path: Path) -> None:
    place = made_place(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        join_shards(FaultyDisk(0, only="write"), place, 3, ".jsonl", any_failed=False)
    assert not place.target.exists()
    assert len(list(place.data.iterdir())) == 6
