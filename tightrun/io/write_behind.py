"""Work handed to one thread of its own: in order, bounded in bytes, its error never lost."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable


class WriteError(RuntimeError):
    """What was handed over could not be written; the cause says why."""


class WriteBehind:
    """Does pieces of work one after the other in a thread, in the order they were given.

    `every` is done as well, about every `period_s` seconds. When something raises, what still
    waits is dropped, `failed` is called once, and every later call raises WriteError with the
    error as its cause.
    """

    def __init__(
        self,
        *,
        every: Callable[[], object],
        period_s: float,
        failed: Callable[[], object],
        name: str,
    ) -> None:
        self._every = every
        self._period_s = period_s
        self._failed = failed
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Callable[[], object], int]] = deque()
        self._bytes = 0
        self._busy = False
        self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def give(self, work: Callable[[], object], nbytes: int = 0, room: int = 0) -> None:
        """Adds work that keeps about `nbytes` in memory; waits until `room` is enough for all.

        Work larger than `room` is taken when nothing else waits.
        """
        with self._changed:
            while self._bytes and self._bytes + nbytes > room and self._error is None:
                self._changed.wait()
            self._check()
            assert not self._closed, "nothing can be given after close"
            self._waiting.append((work, nbytes))
            self._bytes += nbytes
            self._changed.notify_all()

    def drain(self) -> None:
        """Returns when all that was given before is done."""
        with self._changed:
            while (self._waiting or self._busy) and self._error is None:
                self._changed.wait()
            self._check()

    def close(self) -> None:
        """Does what waits, then ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise WriteError(f"the output could not be written: {self._error}") from self._error

    def _run(self) -> None:
        due = time.monotonic() + self._period_s
        try:
            while not self._ended():
                self._do_next(due)
                if time.monotonic() >= due:
                    self._every()
                    due = time.monotonic() + self._period_s
        except BaseException as error:  # it is raised in the threads that call us
            with self._changed:
                self._error = error
                self._waiting.clear()
                self._bytes = 0
                self._changed.notify_all()
            self._failed()

    def _ended(self) -> bool:
        with self._changed:
            return self._closed and not self._waiting

    def _do_next(self, due: float) -> None:
        """Does one piece of work, or waits for it until `due`."""
        with self._changed:
            while not self._waiting:
                left = due - time.monotonic()
                if self._closed or left <= 0:
                    return
                self._changed.wait(left)
            work, nbytes = self._waiting.popleft()
            self._busy = True
        work()
        with self._changed:
            self._busy = False
            self._bytes -= nbytes
            self._changed.notify_all()
