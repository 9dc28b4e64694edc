"""Shares in `limits` are taken of what the machine of the job has."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tightrun.cli.capacities import disk_within, memory_within
from tightrun.io.quantities import Amount

GIB = 2**30
HALF = Amount(share=0.5)


def test_a_share_is_taken_of_the_machines_memory() -> None:
    assert memory_within(HALF, 4 * GIB) == 2 * GIB


def test_a_share_of_what_is_to_be_found_stays_a_share() -> None:
    found = memory_within(HALF, None)
    assert (found, type(found)) == (0.5, float)


def test_bytes_stay_bytes() -> None:
    found = memory_within(Amount(bytes=GIB), None)
    assert (found, type(found)) == (GIB, int)


def test_a_limit_above_the_machines_memory_is_that_memory() -> None:
    assert memory_within(Amount(bytes=8 * GIB), 4 * GIB) == 4 * GIB


@pytest.mark.parametrize(
    ("limit", "capacity", "allowed"),
    [
        (None, None, None),
        (None, 9 * GIB, 9 * GIB),
        (HALF, 8 * GIB, 4 * GIB),
        (Amount(bytes=0), None, 0),
        (Amount(bytes=0), 8 * GIB, 0),
        (Amount(bytes=GIB), None, GIB),
        (Amount(bytes=GIB), 0, 0),
    ],
)
def test_disk_is_the_less_of_limit_and_capacity(
    tmp_path: Path, limit: Amount | None, capacity: int | None, allowed: int | None
) -> None:
    assert disk_within(limit, capacity, tmp_path) == allowed


def test_a_share_of_the_disk_is_one_of_what_is_free_where_the_weights_would_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(total=10 * GIB, used=6 * GIB, free=4 * GIB)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert disk_within(HALF, None, tmp_path / "cache" / "slabs") == 2 * GIB
    assert asked == [tmp_path]
