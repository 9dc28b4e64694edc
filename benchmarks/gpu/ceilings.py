"""What a GPU and its link can do at best, by torch alone.

Run as a program, it prints the rates as one JSON line: bytes/s of the link in, out, and both at
once, and of the device's memory; FLOP/s of matrix products by rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

COPY_BYTES = 256 * 2**20
MEMORY_BYTES = 2**30
WIDTH = (8192, 8192)
ROWS = (1, 16, 64, 256, 1024, 4096)
TIMES = 10

Work = Callable[[], object]


def main() -> None:
    print(json.dumps(ceilings(torch.device("cuda"))))


@torch.inference_mode()
def ceilings(device: torch.device) -> dict[str, object]:
    """The rates of the device, each of the median of ten takings."""
    pinned = [torch.empty(COPY_BYTES, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
    there = [torch.empty(COPY_BYTES, dtype=torch.uint8, device=device) for _ in range(2)]
    large = torch.empty(MEMORY_BYTES // 4, dtype=torch.float32, device=device)
    cuda: Any = torch.cuda
    inward, outward = cuda.Stream(device), cuda.Stream(device)

    def copy_in() -> None:
        there[0].copy_(pinned[0], non_blocking=True)

    def copy_out() -> None:
        pinned[1].copy_(there[1], non_blocking=True)

    def both() -> None:
        now = torch.cuda.current_stream(device)
        for stream, copy in ((inward, copy_in), (outward, copy_out)):
            stream.wait_stream(now)
            with torch.cuda.stream(stream):
                copy()
            now.wait_stream(stream)

    return {
        "name": torch.cuda.get_device_name(device),
        "memory_bytes": torch.cuda.get_device_properties(device).total_memory,
        "h2d_bytes_per_s": COPY_BYTES / seconds(copy_in),
        "d2h_bytes_per_s": COPY_BYTES / seconds(copy_out),
        "both_bytes_per_s": 2 * COPY_BYTES / seconds(both),
        "memory_bytes_per_s": MEMORY_BYTES / seconds(large.sum),
        "flops_per_s": {str(rows): product_rate(rows, device) for rows in ROWS},
    }


def product_rate(rows: int, device: torch.device) -> float:
    """FLOP/s of a bfloat16 product of so many rows; several weights, so that none is in a cache."""
    weights = [torch.randn(WIDTH, device=device).bfloat16() for _ in range(4)]
    x = torch.randn(rows, WIDTH[0], device=device).bfloat16()
    taken = seconds(lambda: [torch.nn.functional.linear(x, weight) for weight in weights])
    return 2 * rows * WIDTH[0] * WIDTH[1] * len(weights) / taken


def seconds(work: Work) -> float:
    """Median seconds of the work on the device, by its own clock."""
    cuda: Any = torch.cuda
    work()
    taken: list[float] = []
    for _ in range(TIMES):
        began, ended = (cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        work()
        ended.record()
        ended.synchronize()
        taken.append(began.elapsed_time(ended) / 1e3)
    return median(taken)


if __name__ == "__main__":
    main()
