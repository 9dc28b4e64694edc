"""How fast this machine multiplies matrices of a model's shapes, in bfloat16: the rate that a job's
FLOPs are divided by to get its bound. Run as a program, it prints the rates as one JSON line.

Each shape is tried as torch does it and with the weight laid out for oneDNN beforehand; on a
processor without products in bfloat16, in float32 and by tightrun's own kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch
from torch.nn import functional

from benchmarks.report import say
from tightrun.cli.load_engine import cache_folder
from tightrun.runtime.kernels.cpu import CpuKernels
from tightrun.runtime.kernels.products import linear
from tightrun.runtime.prepack import has_bf16_products

ROWS = (256, 512, 1024, 2048)
SECONDS_PER_POINT = 0.25
AT_LEAST = 7

Product = Callable[[], torch.Tensor]


def shape(text: str) -> tuple[int, int]:
    """`1024x256` as (1024, 256): inputs and outputs of a product."""
    inputs, _, outputs = text.partition("x")
    return int(inputs), int(outputs)


def main() -> None:
    told = argparse.ArgumentParser(prog="python -m benchmarks.ceiling", description=__doc__)
    told.add_argument("shapes", nargs="+", type=shape, metavar="INPUTSxOUTPUTS")
    told.add_argument("--rows", nargs="+", type=int, default=ROWS)
    told.add_argument("--seconds", type=float, default=SECONDS_PER_POINT, help="of each point")
    arguments = told.parse_args()
    points = []
    with torch.inference_mode():
        for inputs, outputs in arguments.shapes:
            points += list(measure_shape(inputs, outputs, arguments.rows, arguments.seconds))
    print(json.dumps({"points": points}))


def measure_shape(
    inputs: int, outputs: int, rows: tuple[int, ...], seconds: float
) -> Iterator[dict[str, Any]]:
    """FLOP/s of the median product at each number of rows, in every way."""
    weight = torch.randn(outputs, inputs, dtype=torch.bfloat16)
    for row in rows:
        x = torch.randn(row, inputs, dtype=torch.bfloat16)
        for kind, product in products(x, weight).items():
            rate = 2.0 * row * inputs * outputs / median(_times(product, seconds))
            yield {"shape": f"{inputs}x{outputs}", "rows": row, "kind": kind, "flops_per_s": rate}


def products(x: torch.Tensor, weight: torch.Tensor) -> dict[str, Product]:
    """The ways to multiply `x` [rows, inputs] with `weight` [outputs, inputs] on this CPU."""
    plain = partial(functional.linear, x, weight)
    if not has_bf16_products():
        widened = partial(functional.linear, x.float(), weight.float())
        kernels = CpuKernels.load(cache_folder(os.environ) / "kernels", say)
        own = {} if kernels is None else {"kernel": partial(linear, kernels, x, weight)}
        return {"plain": plain, "widened": widened, **own}
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, x.shape[0])
    prepacked = partial(torch.ops.mkldnn._linear_pointwise, x, packed, None, "none", [], "")
    return {"plain": plain, "prepacked": prepacked}


def _times(product: Product, seconds: float) -> list[float]:
    product()
    times: list[float] = []
    while len(times) < AT_LEAST or sum(times) < seconds:
        began = time.perf_counter()
        product()
        times.append(time.perf_counter() - began)
    return times


if __name__ == "__main__":
    main()
