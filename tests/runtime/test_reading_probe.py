"""What is lost of computing while a disk is read is measured side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tightrun.runtime import reading_probe
from tightrun.runtime.device import FileRange, Move
from tightrun.runtime.reading_probe import MOST, PIECE, lost_beside

SIZE = 2 * PIECE + 2**20


class Disk:
    """Notes what it is asked to read, and says when it is at it."""

    def __init__(self) -> None:
        self.moves: list[Move] = []
        self.busy = threading.Event()

    def send(self, moves: list[Move], _urgency: object, _name: str) -> None:
        self.moves += moves
        self.busy.set()


def device_with(disk: Disk, kind: str = "cpu") -> Any:
    def settle(_mark: object) -> None:
        threading.Event().wait(1e-3)

    return SimpleNamespace(torch=torch.device(kind), disk=disk, settle=settle)


def moves() -> list[Move]:
    room = torch.empty(SIZE, dtype=torch.uint8)
    return [Move(room, FileRange(3, 4096, SIZE))]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_probe, "TURN_S", 0.05)
    monkeypatch.setattr(reading_probe, "TURNS", 3)


def told(monkeypatch: pytest.MonkeyPatch, *rates: float) -> None:
    """The work runs so often a second, turn by turn."""
    found = iter(rates)

    def runs(_work: object) -> float:
        time.sleep(0.01)
        return next(found)

    monkeypatch.setattr(reading_probe, "_runs_per_s", runs)


@pytest.mark.parametrize(
    ("rates", "takes"),
    [
        ((100, 60, 100, 70, 100, 90), 0.3),
        ((100, 120, 100, 110, 100, 105), 0.0),
        ((100, 1, 100, 1, 100, 1), MOST),
    ],
)
def test_what_computing_loses_is_the_median_of_the_turns(
    monkeypatch: pytest.MonkeyPatch, rates: tuple[float, ...], takes: float
) -> None:
    told(monkeypatch, *rates)
    lost, loses = lost_beside(device_with(Disk()), moves(), 1.0, lambda: None)
    assert lost == pytest.approx(takes)
    assert loses == 0.0  # a byte a second is not hard to read


def test_what_the_disk_loses_leaves_computing_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, 100, 70, 100, 70, 100, 70)
    _, loses = lost_beside(device_with(Disk()), moves(), 1e18, lambda: None)
    assert loses == pytest.approx(0.7)


def test_all_is_read_in_pieces_in_order() -> None:
    disk = Disk()
    lost_beside(device_with(disk), moves(), 1.0, lambda: time.sleep(0.01))
    last = max(i for i, m in enumerate(disk.moves) if m.source.offset == 4096 + 2 * PIECE)
    first = disk.moves[last - 2 : last + 1]
    assert [m.source.offset for m in first] == [4096, 4096 + PIECE, 4096 + 2 * PIECE]
    assert sum(m.source.nbytes for m in first) == SIZE
    assert [m.target.numel() for m in first] == [m.source.nbytes for m in first]


def test_where_nothing_is_read_nothing_is_lost() -> None:
    refused: Callable[[], object] = lambda: pytest.fail("there is nothing to measure")  # noqa: E731
    assert lost_beside(device_with(Disk()), [], 1e9, refused) == (0.0, 0.0)
    assert lost_beside(device_with(Disk(), "meta"), moves(), 1e9, refused) == (0.0, 0.0)
    assert lost_beside(device_with(Disk()), moves(), 0.0, refused) == (0.0, 0.0)
