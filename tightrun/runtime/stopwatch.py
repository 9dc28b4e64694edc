"""How long work takes, with all that runs beside it, and without what does not belong to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

# A window of runs is at least so long: copies beside the work come in pieces of some milliseconds.
WINDOW_S = 0.016
WINDOWS = 5
# Work that takes longer is timed by a single run.
SLOW_S = 0.2

Work = Callable[[], object]


def seconds_of(work: Work, device: torch.device) -> float:
    """Seconds of one run, as `seconds_of_each` has it."""
    return seconds_of_each([work], device)[0]


def seconds_of_each(
    works: Sequence[Work], device: torch.device, before: Work | None = None
) -> list[float]:
    """Seconds of one run of each, the works taking turns: the median of some windows of runs.

    With `before`, a window is a single run, and `before` is called ahead of it.

    A window's mean, because what runs beside it all the time slows some runs more than others; a
    median, because a job has its share of a machine's quick and slow moments; and turns, so that
    such a moment is not one work's alone.
    """
    once = [seconds_once(work, device) for work in works]
    found = [[seconds] if seconds > SLOW_S else [] for seconds in once]
    for _ in range(WINDOWS):
        for work, seconds, windows in zip(works, once, found, strict=True):
            if seconds <= SLOW_S:
                count = max(1, round(WINDOW_S / max(seconds, 1e-9)))
                if before is not None:
                    before()
                windows.append(_window(work, device, 1 if before is not None else count))
    return [median(windows) for windows in found]


def seconds_once(work: Work, device: torch.device) -> float:
    """Seconds of a single run."""
    return _window(work, device, 1)


def _window(work: Work, device: torch.device, runs: int) -> float:
    _settle(device)
    start = time.perf_counter()
    for _ in range(runs):
        work()
    _settle(device)
    return (time.perf_counter() - start) / runs


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
