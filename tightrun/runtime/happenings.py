"""What will have happened: how threads tell one another, and how a failure travels on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from tightrun.runtime.device import Happening


class TransferFailedError(RuntimeError):
    """A transfer, or one it came after, failed; `__cause__` is the error of the link."""


class LinkClosedError(RuntimeError):
    """The link was closed before the transfer was over."""


class Awaited(Happening, Protocol):
    """A happening that can be waited for, and that says when it is over."""

    error: BaseException | None

    def wait(self) -> None:
        """Block until it is over. Raises TransferFailedError if it failed."""

    def when_done(self, callback: Callable[[Awaited], None]) -> None:
        """Call back once when it is over, in the thread that ends it, or at once."""


class Outcome:
    """Something a thread of ours ends, well or with an error. `done` says that it is over."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Awaited], None]] | None = []

    @property
    def done(self) -> bool:
        return self._callbacks is None

    def finish(self, error: BaseException | None = None) -> None:
        with self._lock:
            assert self._callbacks is not None, f"{self.name} is over already"
            callbacks, self.error, self._callbacks = self._callbacks, error, None
        for callback in callbacks:
            callback(self)

    def when_done(self, callback: Callable[[Awaited], None]) -> None:
        with self._lock:
            if self._callbacks is not None:
                self._callbacks.append(callback)
                return
        callback(self)

    def wait(self) -> None:
        if not self.done:
            # A bare lock wakes its one waiter sooner than an Event does.
            gate = threading.Lock()
            gate.acquire()
            self.when_done(lambda _: gate.release())
            gate.acquire()
        raise_failure(self.name, self.error)


class ThreadTransfer(Outcome):
    """A transfer carried out by a thread. `start_s` and `end_s` are 0 until it is over."""

    def __init__(self, name: str, nbytes: int) -> None:
        super().__init__(name)
        self.nbytes = nbytes
        self.start_s = 0.0
        self.end_s = 0.0


def raise_failure(name: str, error: BaseException | None) -> None:
    if error is not None:
        raise TransferFailedError(f"{name}: {error or type(error).__name__}") from error


def awaited(happening: Happening) -> Awaited:
    """What a device was given back is what its lanes made, and those can all be waited for."""
    assert hasattr(happening, "when_done"), f"{happening!r} is of another device"
    return happening  # type: ignore[return-value]


def when_all(happenings: Sequence[Happening], then: Callable[[BaseException | None], None]) -> None:
    """Call `then` once, when all are over, with the first error among them; at once if they are."""
    lock = threading.Lock()
    left = len(happenings) + 1
    failure: BaseException | None = None

    def one_over(error: BaseException | None) -> None:
        nonlocal left, failure
        with lock:
            left -= 1
            failure = failure or error
            last = left == 0
        if last:
            then(failure)

    for happening in happenings:
        awaited(happening).when_done(lambda over: one_over(over.error))
    one_over(None)
