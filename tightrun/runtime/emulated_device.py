"""An accelerator played by the processor: budgeted memory, and links held to a bandwidth."""

from __future__ import annotations

import math
from collections.abc import Callable

from tightrun.runtime.cpu_device import disk_link
from tightrun.runtime.host_lane import ThreadHostLane
from tightrun.runtime.lane_log import LaneLog
from tightrun.runtime.links import Delay, Pace, ThreadLink, copy_memory
from tightrun.runtime.memory import Faults, Ledger
from tightrun.runtime.processor_device import ProcessorDevice, ThreadLanes


class EmulatedDevice(ProcessorDevice):
    """The processor as an accelerator of `memory_bytes` beside a host of `host_bytes`.

    `h2d`, `d2h` and `disk_read` are bytes/s, None: as fast as memory and disk are. The links really
    copy, one move after the other in each direction, each begun `latency_s` late. `delay` gives,
    by a transfer's name, seconds to hold it back: a test's way to shake the order of things.
    `faults` lets memory run out.
    """

    def __init__(
        self,
        memory_bytes: int,
        host_bytes: int,
        h2d: float | None = None,
        d2h: float | None = None,
        disk_read: float | None = None,
        latency_s: float = 0.0,
        delay: Delay | None = None,
        notify: Callable[[str], None] | None = None,
        faults: Faults | None = None,
    ) -> None:
        log = LaneLog()

        def memory_link(name: str, bytes_per_s: float | None) -> ThreadLink:
            pace = Pace(bytes_per_s or math.inf, latency_s)
            return ThreadLink(name, copy_memory, log, pace=pace, delay=delay)

        lanes = ThreadLanes(
            memory_link("h2d", h2d),
            memory_link("d2h", d2h),
            disk_link(log, Pace(disk_read or math.inf), delay, notify),
            ThreadHostLane(log, delay, faults),
            log,
        )
        device_memory = Ledger("device memory", memory_bytes)
        host_memory = Ledger("host memory", host_bytes)
        super().__init__("emulated", device_memory, host_memory, lanes, faults)
