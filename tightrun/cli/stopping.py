"""What ends a run before its last row: a signal, the time limit, too many failures, an error."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from tightrun.cli.exit_codes import ExitCode

# A stop takes 20 s at most.
SLURM_MARGIN_S = 60.0
MOST_SLURM_S = 400 * 86400.0
# What this process sends to itself, to break into what its main thread does.
WAKE = signal.SIGALRM
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class StoppedError(BaseException):
    """Ends a phase that has nothing to save. Not an Exception, so that no library catches it."""


class Stop:
    """The one stop of a run. The first reason given stands; `event` is what the threads watch."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._nothing_to_save = False
        self._lock = threading.Lock()
        self._wake: Callable[[], None] = lambda: None
        self._reason = ""
        self._code: ExitCode | None = None
        self._error: Exception | None = None

    @property
    def reason(self) -> str:
        return self._reason

    @property
    def code(self) -> ExitCode | None:
        """The exit code that the stop asks for; None while nobody asked."""
        return self._code

    @property
    def error(self) -> Exception | None:
        """The error of a thread that brought the run down, to be raised where it is waited for."""
        return self._error

    def request(self, reason: str, code: ExitCode) -> None:
        """Asks every thread of the run to come to its end."""
        with self._lock:
            if self._code is None:
                self._reason, self._code = reason, code
        self.event.set()

    @contextmanager
    def nothing_to_save(self) -> Iterator[None]:
        """A phase of the main thread that a signal may break into: StoppedError ends it at once."""
        self._nothing_to_save = True
        try:
            self.check()
            yield
        finally:
            self._nothing_to_save = False

    def check(self) -> None:
        """Raises StoppedError once the stop was requested."""
        if self.event.is_set():
            raise StoppedError(self._reason)

    def interrupt(self) -> None:
        """Called in the main thread by a signal: breaks into a phase with nothing to save."""
        if self._nothing_to_save:
            self._nothing_to_save = False
            self.check()

    def expire(self, reason: str) -> None:
        """Requests the stop from a thread, and breaks into such a phase as a signal would."""
        self.request(reason, ExitCode.STOPPED)
        self._wake()

    @contextmanager
    def woken_by(self, wake: Callable[[], None]) -> Iterator[None]:
        """While the block lasts, `wake` is what makes the main thread call `interrupt`."""
        self._wake = wake
        try:
            yield
        finally:
            self._wake = lambda: None

    @contextmanager
    def catching(self) -> Iterator[None]:
        """An error of the block stops the run and is kept, to be raised where the run ends."""
        try:
            yield
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Stops the run because a thread of it raised `error`."""
        with self._lock:
            if self._error is None:
                self._error = error
        self.event.set()


@contextmanager
def time_limit(
    stop: Stop, seconds: float | None, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Stops the run after `seconds` (None is no limit), or in time before its Slurm job ends, as
    the `environment` (by default this process's) says."""
    limits = [] if seconds is None else [(seconds, "the time limit (limits.time) was reached")]
    left_s = slurm_seconds(os.environ if environment is None else environment, time.time())
    if left_s is not None:
        before = f"{SLURM_MARGIN_S:.0f} s before the Slurm job ends (SLURM_JOB_END_TIME)"
        limits.append((max(0.0, left_s - SLURM_MARGIN_S), before))
    if not limits:
        yield
        return
    after_s, reason = min(limits)
    timer = threading.Timer(after_s, stop.expire, (reason,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def slurm_seconds(environment: Mapping[str, str], now: float) -> float | None:
    """Seconds from `now` (Unix time) to the end of the Slurm job this process is of; None if it is
    of none that ends. Source: srun(1), SLURM_JOB_END_TIME."""
    end = environment.get("SLURM_JOB_END_TIME", "")
    if not end.isdecimal() or "SLURM_JOB_ID" not in environment:
        return None
    left_s = int(end) - now
    # A value from another job, or of a job without an end, is none to go by.
    return left_s if 0 < left_s < MOST_SLURM_S else None


@contextmanager
def stop_on_signals(
    stop: Stop, *, first: Callable[[str], None], last: Callable[[], None]
) -> Iterator[None]:
    """The first of `SIGNALS` requests the stop and calls `first(name)`; the second exits at once.

    `last` runs before that exit and must not wait for anything: the process ends within it.
    Only the main thread may install handlers; the old ones are put back at the end.
    """
    seen: list[str] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if seen:
            last()
            os._exit(ExitCode.SECOND_INTERRUPT)
        seen.append(name)
        stop.request(f"{name} was received", ExitCode.STOPPED)
        # A view may hold its lock in this very thread, so it is told from another one.
        threading.Thread(target=first, args=(name,), daemon=True).start()
        stop.interrupt()

    main = threading.main_thread().ident
    assert main is not None
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    before[WAKE] = signal.signal(WAKE, lambda _number, _frame: stop.interrupt())
    try:
        with stop.woken_by(lambda: signal.pthread_kill(main, WAKE)):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
