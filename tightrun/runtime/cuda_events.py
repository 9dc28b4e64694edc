"""Points on CUDA streams: when they were reached, and how threads learn of it.

A stream waits for another by an event and no thread takes part. Only what a thread does next (a
disk read into a staging slot, work of the host lane) needs a thread that watches events.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

import torch

from tightrun.runtime.happenings import Awaited, LinkClosedError, Outcome, raise_failure

# An event's time is a 32-bit number of milliseconds since the anchor: exact to 1 us for so long.
ANCHOR_S = 10.0
ANCHOR_TRIES = 5


def timed_event() -> torch.cuda.Event:
    """An event with a time; a thread that waits for it sleeps instead of spinning."""
    return torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]


def reached(event: torch.cuda.Event) -> bool:
    """Whether the device has passed the event; true for one that was never recorded."""
    return bool(event.query())  # type: ignore[no-untyped-call]


def new_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class CudaClock:
    """Times of events on the host's clock, by an anchor whose time is known on both."""

    def __init__(self, device: torch.device) -> None:
        # Nothing else runs on this stream, so that an event on it happens when it is recorded.
        self._stream = new_stream(device)
        self._set_anchor()

    def seconds(self, event: torch.cuda.Event) -> float:
        """When a finished event happened, in seconds of `time.perf_counter`."""
        return self._anchor_s + float(self._anchor.elapsed_time(event)) / 1e3

    def keep_true(self) -> None:
        """Anchor again now and then: the clocks drift, and large times are coarse."""
        if time.perf_counter() - self._anchor_s > ANCHOR_S:
            self._set_anchor()

    def _set_anchor(self) -> None:
        """By the try that the host was least away in."""
        least_s = float("inf")
        for _ in range(ANCHOR_TRIES):
            anchor = timed_event()
            before = time.perf_counter()
            anchor.record(self._stream)
            anchor.synchronize()
            after = time.perf_counter()
            if after - before < least_s:
                least_s = after - before
                self._anchor, self._anchor_s = anchor, (before + after) / 2


class EventWatcher:
    """A thread that calls back when events have happened, in the order they were given to it."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[torch.cuda.Event, Outcome] | None]
        self._queue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, event: torch.cuda.Event, name: str) -> Outcome:
        """What is over when the event has happened."""
        outcome = Outcome(name)
        with self._lock:
            if not self._closed:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="events", daemon=True)
                    self._thread.start()
                self._queue.put((event, outcome))
                return outcome
        outcome.finish(LinkClosedError("the device is closed"))
        return outcome

    def close(self) -> None:
        """End the thread once what it watches has happened."""
        with self._lock:
            self._closed = True
            self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            event, outcome = item
            failure = None
            try:
                event.synchronize()
            except RuntimeError as error:  # CUDA's own; goes on to whatever comes after
                failure = error
            outcome.finish(failure)


class CudaMark:
    """A point of a stream that work has been enqueued up to."""

    def __init__(self, name: str, event: torch.cuda.Event, watcher: EventWatcher) -> None:
        self.name = name
        self.event = event
        self.error: BaseException | None = None
        self._watcher = watcher

    @property
    def done(self) -> bool:
        return reached(self.event)

    def wait(self) -> None:
        self.event.synchronize()

    def when_done(self, callback: Callable[[Awaited], None]) -> None:
        if self.done:
            callback(self)
        else:
            self._watcher.watch(self.event, self.name).when_done(callback)


class CudaTransfer:
    """Copies on a link's stream, or about to be put there.

    `enqueued` is over when both events are recorded, or with the error for which they never will
    be. Times are 0 until the device has collected them.
    """

    def __init__(self, name: str, nbytes: int, watcher: EventWatcher) -> None:
        self.name = name
        self.nbytes = nbytes
        self.start_s = 0.0
        self.end_s = 0.0
        self.enqueued = Outcome(name)
        self.begin = timed_event()
        self.end = timed_event()
        self._watcher = watcher

    @property
    def error(self) -> BaseException | None:
        return self.enqueued.error

    @property
    def done(self) -> bool:
        return self.enqueued.done and (self.error is not None or reached(self.end))

    def wait(self) -> None:
        self.enqueued.wait()
        try:
            self.end.synchronize()
        except RuntimeError as error:
            raise_failure(self.name, error)

    def when_done(self, callback: Callable[[Awaited], None]) -> None:
        self.enqueued.when_done(lambda over: self._watch(over, callback))

    def _watch(self, enqueued: Awaited, callback: Callable[[Awaited], None]) -> None:
        if enqueued.error is not None or reached(self.end):
            callback(enqueued)
        else:
            self._watcher.watch(self.end, self.name).when_done(callback)
