"""Watches the memory of the machine between passes, and shrinks the run before it is killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch

from tightrun.core import RunNote
from tightrun.policies.pressure import Pressure, Reading
from tightrun.runtime.allocator import give_back_cached_memory
from tightrun.runtime.memory_watch import MemoryState
from tightrun.runtime.survival import Survival

EVERY_S = 1.0


class Watch(Protocol):
    """What tells how the memory is; see `MemoryWatch`."""

    def read(self) -> MemoryState: ...


class HostPressure:
    """Asked after every pass; looks once a second at most.

    What was freed is given back to the system first. Where the processor computes, batches are
    then held to fewer rows; beside a GPU they take next to nothing of the host's memory, and
    nothing is gained by that.
    """

    def __init__(
        self,
        watch: Watch,
        budget_bytes: int,
        device: torch.device,
        survival: Survival,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch, self._device, self._survival = watch, device, survival
        self._pressure = Pressure(budget_bytes)
        self._clock = clock
        self._due_s = clock()

    def look(self, note: Callable[[RunNote], None]) -> None:
        """Do what has to be done by now; `note` is told of every change."""
        now_s = self._clock()
        if now_s < self._due_s:
            return
        self._due_s = now_s + EVERY_S
        state = self._watch.read()
        step = self._pressure.look(
            Reading(
                now_s, state.free_bytes, state.oom_kills, state.high_events, state.stalled_share
            )
        )
        self._survival.pressed = self._pressure.pressed
        if step == "give back":
            give_back_cached_memory(self._device)
            note(self._note("memory_short", "what was freed is given back", state))
        elif step == "shrink" and self._device.type == "cpu":
            rows = self._survival.shrink()
            if rows is not None:
                give_back_cached_memory(self._device)
                note(self._note("memory_short", f"batches are held to {rows:,} rows", state, rows))
        elif step == "relieved":
            note(RunNote("memory_relieved", "memory is not short any more", _figures(state)))

    def _note(self, event: str, done: str, state: MemoryState, rows: int | None = None) -> RunNote:
        figures = _figures(state) if rows is None else {**_figures(state), "held_to": rows}
        return RunNote(event, f"memory is short ({self._pressure.reason}): {done}", figures)


def _figures(state: MemoryState) -> dict[str, int | float | None]:
    return {
        "free_bytes": state.free_bytes,
        "oom_kills": state.oom_kills,
        "high_events": state.high_events,
        "stalled_share": state.stalled_share,
    }
