"""The lane of the processor's small work: one thread, in the order of sending."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

import torch

from tightrun.runtime.device import Happening, LaneSpan
from tightrun.runtime.happenings import LinkClosedError, ThreadTransfer, awaited
from tightrun.runtime.lane_log import LaneLog
from tightrun.runtime.links import Delay
from tightrun.runtime.memory import Faults, OutOfMemoryError


class _HostWork(ThreadTransfer):
    def __init__(self, name: str, work: Callable[[], None], after: Sequence[Happening]) -> None:
        super().__init__(name, 0)
        self.work = work
        self.after = after


class ThreadHostLane:
    """A `HostLane`. `delay` gives, by its name, seconds for which work is held back; `faults` lets
    it fail for want of memory."""

    def __init__(
        self, log: LaneLog, delay: Delay | None = None, faults: Faults | None = None
    ) -> None:
        self.name = "cpu"
        self.busy_s = 0.0
        self._log = log
        self._delay = delay
        self._faults = faults
        self._queue: queue.SimpleQueue[_HostWork | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def send(
        self, work: Callable[[], None], name: str, after: Sequence[Happening] = ()
    ) -> ThreadTransfer:
        """Take the work on; see `HostLane`. The thread begins with the first work."""
        item = _HostWork(name, work, after)
        with self._lock:
            if not self._closing.is_set():
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="cpu", daemon=True)
                    self._thread.start()
                self._queue.put(item)
                return item
        item.finish(LinkClosedError("the host lane is closed"))
        return item

    def close(self) -> None:
        """End the thread after the work in hand; the rest fails with LinkClosedError."""
        with self._lock:
            self._closing.set()
            self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            error = self._do(item)
            # What is waited for may be waited for long; the work's tensors need not live as long.
            del item.work, item.after
            item.finish(error)

    def _do(self, item: _HostWork) -> BaseException | None:
        try:
            for happening in item.after:
                awaited(happening).wait()
            if self._delay is not None:
                self._closing.wait(self._delay(item.name))
            if self._closing.is_set():
                return LinkClosedError("the host lane was closed")
            if self._faults is not None and self._faults(item.name, 0):
                return OutOfMemoryError(f"{item.name}: made to fail")
            item.start_s = time.perf_counter()
            with torch.inference_mode():
                item.work()
            item.end_s = time.perf_counter()
        except BaseException as error:  # raised again by whoever waits for the work
            return error
        self.busy_s += item.end_s - item.start_s
        self._log.enter(LaneSpan("cpu", item.name, item.start_s, item.end_s))
        return None
