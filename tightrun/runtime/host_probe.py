"""What the host needs for a pass beside the device: choosing, packing, counting, appending."""

from __future__ import annotations

import time
from array import array

import torch

from tightrun.core import Request
from tightrun.policies.hardware import Rates
from tightrun.policies.kv import Distributor
from tightrun.policies.plan import Plan
from tightrun.policies.shape import LayerShape, ModelShape
from tightrun.runtime.context_split import ContextSplit
from tightrun.runtime.finishing import append_token
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.pass_plan import PassPlanner, WeightTraffic
from tightrun.runtime.prefix import SharedPrefix
from tightrun.runtime.rope_sides import RopeSides
from tightrun.runtime.scheduler import Scheduler
from tightrun.runtime.sequence import Sequence

BLOCK_TOKENS = 64
PROMPT = 8
# The first pass is the prompts', and finds caches cold.
PASSES = 12
COLD = 2
ENDS = frozenset({-1})


def host_seconds(sequences: int, device: torch.device) -> float:
    """Seconds of a pass of so many decoding sequences in one batch, all but what the device does.

    The passes are those of the engine, over a model without layers to compute.
    """
    layer = LayerShape(1, 1, 8, 8, 64, 128)
    shape = ModelShape((layer,), 8, 64, 64, 128, 64, 2, 8, BLOCK_TOKENS)
    plan = Plan(sequences, 1, sequences * PROMPT, BLOCK_TOKENS, sequences, BLOCK_TOKENS)
    cache = KVCache(
        shape, plan.kv_blocks, BLOCK_TOKENS, sequences + 1, BLOCK_TOKENS, torch.float32, device
    )
    scheduler = Scheduler(plan, cache, SharedPrefix(cache))
    distributor = Distributor(shape, Rates(((1, 1e9),), 1e10), "none", BLOCK_TOKENS)
    planner = PassPlanner(
        shape, cache, distributor, ContextSplit(cache, "none", 0), RopeSides(), device,
        WeightTraffic(), 0,
    )  # fmt: skip
    for row in range(sequences):
        tokens = array("i", [1 + row % 60] * PROMPT)
        scheduler.add(Sequence(Request(row, "probe", ""), 0, tokens, PROMPT, BLOCK_TOKENS))
    best = float("inf")
    for number in range(PASSES):
        start = time.perf_counter()
        _pass(scheduler, planner)
        if number >= COLD:
            best = min(best, time.perf_counter() - start)
    return best


def _pass(scheduler: Scheduler, planner: PassPlanner) -> None:
    block = scheduler.next_block()
    planned = planner.plan(block)
    for batch in planned.batches:
        batch.work()
    scheduler.advance(block)
    for segments in block:
        for segment in segments:
            # Of a sequence without stop strings, no text is looked at.
            append_token(segment.sequence, 1, None, ENDS, None)  # type: ignore[arg-type]
