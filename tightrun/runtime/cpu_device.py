"""The processor as the device: one memory, and a disk that reads straight into it."""

from __future__ import annotations

from collections.abc import Callable

from tightrun.runtime.disk_reads import READS_IN_FLIGHT, DiskReads
from tightrun.runtime.host_lane import ThreadHostLane
from tightrun.runtime.lane_log import LaneLog
from tightrun.runtime.links import Delay, Pace, ThreadLink, copy_memory
from tightrun.runtime.memory import Faults, Ledger
from tightrun.runtime.processor_device import ProcessorDevice, ThreadLanes


class CpuDevice(ProcessorDevice):
    """A processor with `memory_bytes` of memory, entered in one ledger; links in and out copy."""

    def __init__(
        self,
        memory_bytes: int,
        *,
        delay: Delay | None = None,
        notify: Callable[[str], None] | None = None,
        faults: Faults | None = None,
    ) -> None:
        log = LaneLog()
        memory = Ledger("memory", memory_bytes)
        lanes = ThreadLanes(
            ThreadLink("h2d", copy_memory, log, delay=delay),
            ThreadLink("d2h", copy_memory, log, delay=delay),
            disk_link(log, Pace(), delay, notify),
            ThreadHostLane(log, delay, faults),
            log,
        )
        super().__init__("cpu", memory, memory, lanes, faults)


def disk_link(
    log: LaneLog, pace: Pace, delay: Delay | None, notify: Callable[[str], None] | None
) -> ThreadLink:
    """The link that reads files into host memory."""
    reads = DiskReads(notify)
    return ThreadLink(
        "disk", reads, log, pace=pace, workers=READS_IN_FLIGHT, moves_at_once=1, delay=delay
    )
