"""What is to be done every so often beside the run: redraw, log, flush."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tightrun.cli.stopping import Stop


@dataclass(frozen=True, slots=True)
class Beat:
    """An action and the seconds between two of its calls."""

    every_s: float
    action: Callable[[], None]


@contextmanager
def beating(stop: Stop, *beats: Beat) -> Iterator[None]:
    """Calls every action of `beats` from one thread while the block runs, first after `every_s`.

    An error of an action stops the run. No action runs any more when the block has ended.
    """
    ended = threading.Event()

    def keep_time() -> None:
        due = [time.monotonic() + beat.every_s for beat in beats]
        with stop.catching():
            while not ended.wait(max(0.0, min(due) - time.monotonic())):
                for number, beat in enumerate(beats):
                    if time.monotonic() >= due[number]:
                        beat.action()
                        due[number] = time.monotonic() + beat.every_s

    thread = threading.Thread(target=keep_time, name="tightrun-beats", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
