"""A card with CUDA: it computes on the current stream, its links are streams of their own.

Its tests have run on an H200, streamed passes have not (docs/gpu.md). Threads take part only where
a thread's work does: the disk is a thread that reads into pinned memory, and the host lane is one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import torch

from tightrun.runtime.cpu_device import disk_link
from tightrun.runtime.cuda_events import (
    CudaClock,
    CudaMark,
    CudaTransfer,
    EventWatcher,
    reached,
    timed_event,
)
from tightrun.runtime.cuda_links import CudaLink
from tightrun.runtime.cuda_memory import RegisteredMemory, take_device
from tightrun.runtime.device import Happening, HostLane, LaneSpan, Link
from tightrun.runtime.happenings import awaited
from tightrun.runtime.host_lane import ThreadHostLane
from tightrun.runtime.lane_log import ComputeLane, LaneLog
from tightrun.runtime.links import Delay, Pace
from tightrun.runtime.memory import Ledger

# So many computed parts may be untimed before they are looked through.
UNCOLLECTED = 256


class CudaDevice:
    """A `Device` on a CUDA card. `computing_s`, `busy_s` and `moved_bytes` are as of the last
    `spans` or `settle`; times are those of the card, on the host's clock.
    """

    def __init__(
        self,
        torch_device: torch.device | str,
        memory_bytes: int,
        host_bytes: int,
        *,
        delay: Delay | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        asked = torch.device(torch_device)
        torch.cuda.set_device(asked)
        self.kind = "cuda"
        self.torch = torch.device("cuda", torch.cuda.current_device())
        self.memory = Ledger("device memory", memory_bytes)
        self.host_memory = Ledger("host memory", host_bytes)
        self.computing_s = 0.0
        self.waited_s = 0.0
        self._log = LaneLog()
        self._clock = CudaClock(self.torch)
        self._watcher = EventWatcher()
        self._pinned = RegisteredMemory(self.host_memory)
        self._in = CudaLink("h2d", self.torch, self._watcher, self._log, self._pinned.seams)
        self._out = CudaLink("d2h", self.torch, self._watcher, self._log, self._pinned.seams)
        self._reads = disk_link(self._log, Pace(), delay, notify)
        self._host = ThreadHostLane(self._log, delay)
        self.link_in: Link = self._in
        self.link_out: Link = self._out
        self.disk: Link = self._reads
        self.host: HostLane = self._host
        self._computed: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()
        self._compute = ComputeLane(self._stamp, self._note_computed)

    def now(self) -> float:
        return time.perf_counter()

    def empty(self, nbytes: int, arena: str) -> torch.Tensor:
        return take_device(self.memory, self.torch, nbytes, arena)

    def empty_host(self, nbytes: int, arena: str) -> torch.Tensor:
        return self._pinned.take(nbytes, arena)

    def compute(self, name: str, work: Callable[[], None], workspace_bytes: int = 0) -> None:
        del workspace_bytes  # the allocator knows what is really taken
        self._compute.run(name, work)
        if len(self._computed) > UNCOLLECTED:
            self._collect()

    def mark(self) -> Happening:
        return CudaMark("a point of computing", self._stamp(), self._watcher)

    def wait(self, *happenings: Happening) -> None:
        """Let the current stream wait. The host waits only for what a thread has still to do.

        Raises TransferFailedError for a transfer that failed before it was enqueued.
        """
        with self._compute.paused():
            stream = torch.cuda.current_stream(self.torch)
            for happening in happenings:
                if isinstance(happening, CudaTransfer):
                    happening.enqueued.wait()
                    stream.wait_event(happening.end)
                elif isinstance(happening, CudaMark):
                    stream.wait_event(happening.event)
                else:
                    awaited(happening).wait()

    def settle(self, *happenings: Happening) -> None:
        """Block until all are over. Raises TransferFailedError if one failed."""
        with self._compute.paused():
            for happening in happenings:
                awaited(happening).wait()
        self._collect()

    def spans(self) -> list[LaneSpan]:
        self._collect()
        self._clock.keep_true()
        return self._log.drain()

    def close(self) -> None:
        self._reads.close()
        self._host.close()
        self._watcher.close()
        self._in.close()
        self._out.close()
        self._pinned.close()

    def _stamp(self) -> torch.cuda.Event:
        event = timed_event()
        event.record(torch.cuda.current_stream(self.torch))
        return event

    def _note_computed(self, name: str, begin: torch.cuda.Event, end: torch.cuda.Event) -> None:
        self._computed.append((name, begin, end))

    def _collect(self) -> None:
        self._in.collect(self._clock)
        self._out.collect(self._clock)
        while self._computed and reached(self._computed[0][2]):
            name, begin, end = self._computed.popleft()
            start_s, end_s = self._clock.seconds(begin), self._clock.seconds(end)
            self.computing_s += end_s - start_s
            self._log.enter(LaneSpan("compute", name, start_s, end_s))
