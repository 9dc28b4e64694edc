"""A short probe of what the device can do: matrix products by rows, and memory bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from tightrun.policies.hardware import Rates
from tightrun.policies.shape import ModelShape
from tightrun.runtime.fusing import fuse
from tightrun.runtime.kernels.cpu import CpuKernels
from tightrun.runtime.prepack import can_prepack, prepack

ROWS = (1, 16, 64, 256, 1024, 2048)
SECONDS_PER_POINT = 0.02
# A point that takes longer is the last one that is measured.
SLOW_POINT_S = 0.2
MEMORY_BYTES = 128 * 2**20


def probe_rates(
    shape: ModelShape,
    dtype: torch.dtype,
    device: torch.device,
    kernels: CpuKernels | None = None,
    *,
    packed: bool = True,
) -> Rates:
    """Best rate of a few runs at each number of rows, for a product of this model's width.

    With `packed`, weights are laid out beforehand where that exists. `kernels` multiply where they
    will in work.
    """
    linear = nn.Linear(shape.hidden, shape.widest, bias=False, dtype=dtype, device=device)
    flops_per_row = 2.0 * shape.hidden * shape.widest
    if packed and can_prepack(device, dtype):
        prepack(linear, ROWS[-1])
    if kernels is not None:
        fuse(linear, kernels)
    points: list[tuple[int, float]] = []
    with torch.inference_mode():
        for rows in ROWS:
            x = torch.randn(rows, shape.hidden, dtype=dtype, device=device)
            seconds = best_seconds(partial(linear, x), device)
            points.append((rows, flops_per_row * rows / seconds))
            if seconds > SLOW_POINT_S:
                break
    return Rates(tuple(points), memory_bandwidth(device))


def memory_bandwidth(device: torch.device) -> float:
    """Bytes per second that the device reads its memory at."""
    source = torch.ones(MEMORY_BYTES // 4, dtype=torch.float32, device=device)
    with torch.inference_mode():
        return MEMORY_BYTES / best_seconds(source.sum, device)


def best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the best of some runs, of which slow work gets one alone."""
    best = float("inf")
    end = time.perf_counter() + SECONDS_PER_POINT
    runs = 0
    # The first run finds caches cold and kernels unmade.
    while runs < 4 or time.perf_counter() < end:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
        runs += 1
        if best > SLOW_POINT_S:
            break
    return best
