"""What each layer of a batch costs beside its computing and its link where context is off the
device: sending for it, pointing at it, gathering new rows and sending them, with the threads that
do so at work on the same processors."""

from __future__ import annotations

import time
from array import array
from statistics import fmean

import torch

from tightrun.core import Request
from tightrun.policies.hardware import Budget, Hardware, Rates
from tightrun.policies.kv import Distributor
from tightrun.policies.plan import Plan
from tightrun.policies.shape import LayerShape, ModelShape
from tightrun.runtime.batch import Batch
from tightrun.runtime.context_links import ContextLinks
from tightrun.runtime.context_split import ContextSplit
from tightrun.runtime.device import Device
from tightrun.runtime.finishing import append_token
from tightrun.runtime.kv_cache import KVCache, Rooms
from tightrun.runtime.loaded_model import Notify
from tightrun.runtime.machines import make_device
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.pass_plan import PassPlanner, WeightTraffic
from tightrun.runtime.prefix import SharedPrefix
from tightrun.runtime.rope_sides import RopeSides
from tightrun.runtime.scheduler import Scheduler
from tightrun.runtime.sequence import Sequence

ROOM = Budget(32 * 2**20, "probe")
LAYERS, SEQUENCES, PROMPT, BLOCK_TOKENS = 4, 16, 40, 16
LONGEST = 64
HEADS, DIM = 2, 64
# The first pass is the prompts'.
PASSES, COLD = 12, 2
# Some milliseconds of computing on every thread, beside which what was sent for arrives.
ROWS, INPUTS, OUTPUTS = 64, 1024, 2048
ENDS = frozenset({-1})


def layer_seconds_of_contexts(
    options: EngineOptions, like: Device, dtype: torch.dtype, notify: Notify
) -> float:
    """Seconds of a layer and a batch, on a small device with the links of the one it is to be like.

    0.0 where there is none: on a CPU context is nowhere else, and on CUDA the host runs ahead.
    """
    if like.kind != "emulated":
        return 0.0
    hardware = Hardware(str(like.torch), ROOM, ROOM, cores=0)
    device = make_device(options, hardware, like.torch, notify)
    try:
        with torch.inference_mode():
            return _Contexts(device, dtype).layer_seconds()
    finally:
        device.close()


class _Contexts:
    """Sequences whose contexts are in host memory, and passes over them that compute little."""

    def __init__(self, device: Device, dtype: torch.dtype) -> None:
        self._device = device
        layer = LayerShape(HEADS, HEADS, DIM, DIM, 64, 128)
        shape = ModelShape((layer,) * LAYERS, DIM, 64, 64, 128, 64, dtype.itemsize, DIM, LONGEST)
        blocks = SEQUENCES * LONGEST // BLOCK_TOKENS
        rows = SEQUENCES * PROMPT
        plan = Plan(
            SEQUENCES, 1, rows, BLOCK_TOKENS, 0, LONGEST,
            workspace_blocks=blocks, host_blocks=blocks, staging_rows=rows, most_rows=rows,
        )  # fmt: skip
        cache = KVCache(
            shape, 0, BLOCK_TOKENS, SEQUENCES + 1, LONGEST, dtype, device.torch,
            rooms=Rooms(1, blocks, blocks), memory=device,
        )  # fmt: skip
        self._links = ContextLinks(device, cache, rows)
        self._scheduler = Scheduler(plan, cache, SharedPrefix(cache))
        distributor = Distributor(shape, Rates(((1, 1e9),), 1e10), "none", BLOCK_TOKENS)
        self._planner = PassPlanner(
            shape, cache, distributor, ContextSplit(cache, "none", 0), RopeSides(), device.torch,
            WeightTraffic(), rows,
        )  # fmt: skip
        for row in range(SEQUENCES):
            tokens = array("i", [1 + row % 60] * PROMPT)
            self._scheduler.add(Sequence(Request(row, "probe", ""), 0, tokens, PROMPT, LONGEST))
        self._rows = torch.randn(ROWS, INPUTS).to(dtype)
        self._weight = torch.randn(OUTPUTS, INPUTS).to(dtype)

    def layer_seconds(self) -> float:
        """The mean of some passes: threads that wake in the way are a part of it."""
        return max(0.0, fmean([self._pass() for _ in range(PASSES)][COLD:]))

    def _pass(self) -> float:
        block = self._scheduler.next_block()
        (batch,) = self._planner.plan(block).batches
        self._links.fetch(0, batch)
        self._device.settle(*self._links.outstanding())
        began, computed = time.perf_counter(), self._device.computing_s
        for layer in range(LAYERS):
            self._layer(layer, batch)
        seconds = time.perf_counter() - began - (self._device.computing_s - computed)
        self._device.settle(self._device.mark(), *self._links.outstanding())
        self._scheduler.advance(block)
        for segments in block:
            for segment in segments:
                # Of a sequence without stop strings, no text is looked at.
                append_token(segment.sequence, 1, None, ENDS, None)  # type: ignore[arg-type]
        return seconds / LAYERS

    def _layer(self, layer: int, batch: Batch) -> None:
        """As the overlapped loop does it: the next context is sent for before this one's use."""
        if layer + 1 < LAYERS:
            self._links.fetch(layer + 1, batch)
        self._links.arrive(layer, batch)
        new = torch.zeros(HEADS, batch.tokens, DIM, dtype=self._rows.dtype)

        def compute() -> None:
            torch.nn.functional.linear(self._rows, self._weight)
            self._links.gather_rows(layer, batch, new, new)

        self._device.compute("probe", compute)
        self._links.store(layer, batch)
