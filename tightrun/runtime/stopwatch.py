"""How long work takes, with all that runs beside it, and without what does not belong to it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

# A window of runs is at least so long: copies beside the work come in pieces of some milliseconds.
WINDOW_S = 0.016
WINDOWS = 3
# Work that takes longer is timed by a single run.
SLOW_S = 0.2


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one run: the mean of a window of runs, of the quickest of some windows.

    A mean, because what runs beside it all the time slows some runs more than others; the
    quickest, because a machine has other things to do now and then.
    """
    once = _window(work, device, 1)
    if once > SLOW_S:
        return once
    count = max(1, round(WINDOW_S / max(once, 1e-9)))
    return min(_window(work, device, count) for _ in range(WINDOWS))


def _window(work: Callable[[], object], device: torch.device, runs: int) -> float:
    _settle(device)
    start = time.perf_counter()
    for _ in range(runs):
        work()
    _settle(device)
    return (time.perf_counter() - start) / runs


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
