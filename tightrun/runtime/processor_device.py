"""What the devices that compute on the processor share: links are threads, computing is at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tightrun.runtime.device import Happening, HostLane, LaneSpan, Link
from tightrun.runtime.happenings import Outcome, awaited
from tightrun.runtime.host_lane import ThreadHostLane
from tightrun.runtime.lane_log import ComputeLane, LaneLog
from tightrun.runtime.links import ThreadLink
from tightrun.runtime.memory import WORKSPACE, Faults, Ledger, OutOfMemoryError
from tightrun.runtime.page_memory import take_pages


@dataclass(frozen=True, slots=True)
class ThreadLanes:
    """The links and the host lane of one device, and the log they all enter their spans in."""

    link_in: ThreadLink
    link_out: ThreadLink
    disk: ThreadLink
    host: ThreadHostLane
    log: LaneLog

    def close(self) -> None:
        for link in (self.link_in, self.link_out, self.disk):
            link.close()
        self.host.close()


class ProcessorDevice:
    """A `Device` whose compute calls return when they are done.

    One thread computes; any thread may send and settle. `wait` therefore blocks, and a `mark` has
    happened when it is made. Time spent waiting inside `compute` does not count as computing.
    `faults` lets allocations and computing fail.
    """

    def __init__(
        self,
        kind: str,
        memory: Ledger,
        host_memory: Ledger,
        lanes: ThreadLanes,
        faults: Faults | None = None,
    ) -> None:
        self.kind = kind
        self.torch = torch.device("cpu")
        self.memory = memory
        self.host_memory = host_memory
        self.link_in: Link = lanes.link_in
        self.link_out: Link = lanes.link_out
        self.disk: Link = lanes.disk
        self.host: HostLane = lanes.host
        self.computing_s = 0.0
        self.waited_s = 0.0
        self._lanes = lanes
        self._faults = faults
        self._compute = ComputeLane(self.now, self._enter_computing)
        self._here = Outcome("a point of computing")
        self._here.finish()

    def now(self) -> float:
        return time.perf_counter()

    def empty(self, nbytes: int, arena: str) -> torch.Tensor:
        self._may_fail(f"arena {arena}", nbytes)
        return take_pages(self.memory, nbytes, arena)

    def empty_host(self, nbytes: int, arena: str) -> torch.Tensor:
        self._may_fail(f"host arena {arena}", nbytes)
        return take_pages(self.host_memory, nbytes, arena)

    def compute(self, name: str, work: Callable[[], None], workspace_bytes: int = 0) -> None:
        """Do the work now; see `Device`. `faults` are asked before it, and again at its end."""
        self._may_fail(name, workspace_bytes)
        self.memory.take(workspace_bytes, WORKSPACE)
        try:
            self._compute.run(name, work)
            self._may_fail(f"end of {name}", workspace_bytes)
        finally:
            self.memory.give(workspace_bytes, WORKSPACE)

    def mark(self) -> Happening:
        return self._here

    def wait(self, *happenings: Happening) -> None:
        """Block until all are over. Raises TransferFailedError if one failed."""
        if all(happening.done for happening in happenings):
            _raise_failures(happenings)
            return
        start = self.now()
        with self._compute.paused():
            _raise_failures(happenings)
        self.waited_s += self.now() - start

    def settle(self, *happenings: Happening) -> None:
        """Block until all are over. Raises TransferFailedError if one failed."""
        self.wait(*happenings)

    def spans(self) -> list[LaneSpan]:
        return self._lanes.log.drain()

    def close(self) -> None:
        self._lanes.close()

    def _may_fail(self, name: str, nbytes: int) -> None:
        if self._faults is not None and self._faults(name, nbytes):
            raise OutOfMemoryError(f"{name}: made to fail for {nbytes:,} bytes")

    def _enter_computing(self, name: str, start_s: float, end_s: float) -> None:
        self.computing_s += end_s - start_s
        self._lanes.log.enter(LaneSpan("compute", name, start_s, end_s))


def _raise_failures(happenings: tuple[Happening, ...]) -> None:
    for happening in happenings:
        awaited(happening).wait()
