"""A run whose machine runs out of memory shrinks, says so, and grows again."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest
import torch

from tests.parity.tiny_models import as_text, ragged_prompts
from tests.runtime.engines import ask, small_engine, texts
from tightrun.core import Completion, RunNote
from tightrun.policies.caps import PATIENCE
from tightrun.runtime.host_pressure import HostPressure
from tightrun.runtime.loading import LoadedModel
from tightrun.runtime.memory_watch import MemoryState
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.survival import Survival

GIB, MIB = 2**30, 2**20
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@dataclass
class StandIn:
    """A machine with so much memory left, a clock, and what was said and done about it."""

    free_bytes: int = 8 * GIB
    now_s: float = 0.0
    device: torch.device = CPU
    read_at: list[float] = field(default_factory=list)
    notes: list[RunNote] = field(default_factory=list)
    held: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.survival = Survival(2048, self.held.append)
        self.pressure = HostPressure(self, 12 * GIB, self.device, self.survival, lambda: self.now_s)

    def read(self) -> MemoryState:
        self.read_at.append(self.now_s)
        return MemoryState(self.free_bytes, 0, 0, 0.0)

    def passes(self, seconds: float, rows: int = 2048, each_s: float = 0.25) -> None:
        for _ in range(round(seconds / each_s)):
            self.now_s += each_s
            self.survival.passed(min(rows, self.survival.cap.rows), self.notes.append)
            self.pressure.look(self.notes.append)


def test_it_looks_once_a_second() -> None:
    machine = StandIn()
    machine.passes(10)
    assert len(machine.read_at) == 10
    assert machine.notes == []


def test_where_memory_stays_short_batches_are_halved_and_every_change_is_said() -> None:
    machine = StandIn()
    machine.passes(2)
    machine.free_bytes = 100 * MIB
    machine.passes(15)
    assert machine.held == [1024, 512]
    assert [note.text for note in machine.notes] == [
        "memory is short (100 MiB are left): what was freed is given back",
        "memory is short (100 MiB are left): batches are held to 1,024 rows",
        "memory is short (100 MiB are left): batches are held to 512 rows",
    ]
    assert machine.notes[1].figures["free_bytes"] == 100 * MIB
    assert machine.notes[1].figures["held_to"] == 1024


def test_nothing_grows_before_there_is_room_again() -> None:
    machine = StandIn(free_bytes=100 * MIB)
    machine.passes(3)
    machine.free_bytes = 400 * MIB  # more than is short, less than is plenty
    machine.passes(2 * PATIENCE * 0.25)
    assert machine.held == [1024]
    machine.free_bytes = 8 * GIB
    machine.passes(31 + (PATIENCE + 1) * 0.25)
    assert machine.held == [1024, 1280]
    assert [note.event for note in machine.notes[-2:]] == ["memory_relieved", "rows_raised"]


def test_narrow_batches_are_left_as_they_are() -> None:
    machine = StandIn(free_bytes=100 * MIB)
    machine.passes(20, rows=24)
    assert machine.held == []


def test_beside_a_gpu_nothing_is_gained_by_narrower_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    machine = StandIn(free_bytes=100 * MIB, device=CUDA)
    machine.passes(20)
    assert machine.held == []
    assert [note.event for note in machine.notes] == ["memory_short"]


def test_an_engine_under_pressure_says_the_same_in_narrower_batches(
    tiny_llama: tuple[EngineOptions, LoadedModel],
) -> None:
    requests = [
        ask(i, as_text(p), max_tokens=8, ignore_eos=True)
        for i, p in enumerate(ragged_prompts(9, shared=0, longest=60))
    ]
    undisturbed = texts(small_engine(tiny_llama), requests)

    class Short:
        def read(self) -> MemoryState:
            return MemoryState(MIB, 0, 0, 0.0)

    seconds = iter(range(0, 10**6, 3))
    engine = small_engine(tiny_llama, prefill_tokens=64)
    engine._pressure = HostPressure(
        Short(), 12 * GIB, CPU, engine._survival, lambda: float(next(seconds))
    )
    notes: list[RunNote] = []
    got: list[Completion] = []
    engine.run(requests, got.append, lambda _: None, threading.Event(), None, notes.append)
    assert {c.row_index: c.samples[0].text for c in got} == undisturbed
    assert {note.event for note in notes} >= {"memory_short"}
    assert engine._survival.cap.holds
