"""A short probe of what the device can do: matrix products by rows, and memory bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from tightrun.policies.hardware import Rates
from tightrun.policies.shape import ModelShape
from tightrun.runtime.prepack import can_prepack, prepack

ROWS = (1, 16, 64, 256, 1024, 2048)
SECONDS_PER_POINT = 0.02
MEMORY_BYTES = 128 * 2**20


def probe_rates(
    shape: ModelShape, dtype: torch.dtype, device: torch.device, *, packed: bool = True
) -> Rates:
    """Best rate of a few runs at each number of rows, for a product of this model's width.

    With `packed`, weights are laid out beforehand where that exists.
    """
    linear = nn.Linear(shape.hidden, shape.widest, bias=False, dtype=dtype, device=device)
    flops_per_row = 2.0 * shape.hidden * shape.widest
    if packed and can_prepack(device, dtype):
        prepack(linear, ROWS[-1])
    points = []
    with torch.inference_mode():
        for rows in ROWS:
            x = torch.randn(rows, shape.hidden, dtype=dtype, device=device)
            best = _best_seconds(partial(linear, x), device)
            points.append((rows, flops_per_row * rows / best))
        source = torch.ones(MEMORY_BYTES // 4, dtype=torch.float32, device=device)
        memory = MEMORY_BYTES / _best_seconds(source.sum, device)
    return Rates(tuple(points), memory)


def _best_seconds(work: Callable[[], object], device: torch.device) -> float:
    best = float("inf")
    work()
    end = time.perf_counter() + SECONDS_PER_POINT
    runs = 0
    while runs < 3 or time.perf_counter() < end:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
        runs += 1
    return best
