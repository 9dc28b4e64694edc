"""What is lost of computing while a disk is read is measured side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tightrun.runtime import reading_probe
from tightrun.runtime.device import FileRange, Move
from tightrun.runtime.reading_probe import MOST, reading_takes

SIZE = 130 * 2**20


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


def told(monkeypatch: pytest.MonkeyPatch, *rates: float) -> None:
    """The work runs so often a second, turn by turn."""
    found = iter(rates)
    monkeypatch.setattr(reading_probe, "_runs_per_s", lambda _work: next(found))


@pytest.mark.parametrize(
    ("rates", "takes"),
    [
        ((100, 60, 100, 70, 100, 90), 0.3),
        ((100, 120, 100, 110, 100, 105), 0.0),
        ((100, 1, 100, 1, 100, 1), MOST),
    ],
)
def test_the_share_is_the_median_of_the_turns(
    monkeypatch: pytest.MonkeyPatch, rates: tuple[float, ...], takes: float
) -> None:
    told(monkeypatch, *rates)
    assert reading_takes(device_with(Disk()), moves(), lambda: None) == pytest.approx(takes)


def test_all_is_read_in_pieces_in_order() -> None:
    disk = Disk()
    reading_takes(device_with(disk), moves(), lambda: disk.busy.wait(5) and None)
    # A turn may end before all is read, and the next one begins anew.
    last = max(i for i, m in enumerate(disk.moves) if m.source.offset == 4096 + 128 * 2**20)
    first = disk.moves[last - 2 : last + 1]
    assert [m.source.offset for m in first] == [4096, 4096 + 64 * 2**20, 4096 + 128 * 2**20]
    assert sum(m.source.nbytes for m in first) == SIZE
    assert [m.target.numel() for m in first] == [m.source.nbytes for m in first]


def test_where_nothing_is_read_nothing_is_lost() -> None:
    refused: Callable[[], object] = lambda: pytest.fail("there is nothing to measure")  # noqa: E731
    assert reading_takes(device_with(Disk()), [], refused) == 0.0
    assert reading_takes(device_with(Disk(), "meta"), moves(), refused) == 0.0
