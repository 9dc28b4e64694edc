"""CUDA's streams, events and pinning played by the processor.

Copies happen when they are enqueued. What is recorded on a stream that is held has not happened
until it is let go, so that a test decides how far the card is.
"""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from typing import Any

import pytest
import torch


class StandInEvent:
    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        assert blocking, "a thread that waits would spin"
        self.timed = enable_timing
        self.time = 0.0
        self.recorded = False
        self._happened = threading.Event()

    def record(self, stream: StandInStream) -> None:
        self.recorded = True
        stream.log.append(("record", self))
        if stream.held:
            stream.waiting.append(self)
        else:
            self.happen()

    def happen(self) -> None:
        self.time = time.perf_counter()
        self._happened.set()

    def query(self) -> bool:
        return not self.recorded or self._happened.is_set()

    def synchronize(self) -> None:
        assert not self.recorded or self._happened.wait(10)

    def elapsed_time(self, later: StandInEvent) -> float:
        assert self.query()
        assert later.query()
        return (later.time - self.time) * 1e3


class StandInStream:
    def __init__(self, device: Any = None) -> None:
        self.device = device
        self.held = False
        self.waiting: list[StandInEvent] = []
        self.log: list[tuple[str, StandInEvent]] = []

    def wait_event(self, event: StandInEvent) -> None:
        assert event.recorded, "CUDA takes an event that was never recorded for one that happened"
        self.log.append(("wait", event))

    def hold(self) -> None:
        self.held = True

    def let_go(self) -> None:
        self.held = False
        for event in self.waiting:
            event.happen()
        self.waiting.clear()

    def synchronize(self) -> None:
        for event in self.waiting:
            event.synchronize()


class StandInRuntime:
    """`cudart`: what is registered, and the status it answers with."""

    def __init__(self) -> None:
        self.registered: dict[int, int] = {}
        self.status = 0

    def cudaHostRegister(self, address: int, nbytes: int, flags: int) -> int:  # noqa: N802, ARG002
        if not self.status:
            self.registered[address] = nbytes
        return self.status

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        del self.registered[address]
        return 0


class StandInCuda:
    """Takes the place of torch.cuda's names for as long as the patch lasts."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.compute = StandInStream()
        self.runtime = StandInRuntime()
        patch.setattr(torch.cuda, "Event", StandInEvent)
        patch.setattr(torch.cuda, "Stream", StandInStream)
        patch.setattr(torch.cuda, "stream", lambda _: nullcontext())
        patch.setattr(torch.cuda, "current_stream", lambda _=None: self.compute)
        patch.setattr(torch.cuda, "set_device", lambda _: None)
        patch.setattr(torch.cuda, "current_device", lambda: 0)
        patch.setattr(torch.cuda, "cudart", lambda: self.runtime)
