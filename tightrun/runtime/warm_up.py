"""The widest pass once, before the run, so that the allocator has all it will ever need."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import torch

from tightrun.core import Request
from tightrun.policies.plan import Plan
from tightrun.runtime.batch import Segment, pack
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.model import CutModel
from tightrun.runtime.scheduler import Scheduler
from tightrun.runtime.sequence import Sequence


def widest_streamed_pass(
    scheduler: Scheduler, plan: Plan, run: Callable[[list[list[Segment]]], None]
) -> None:
    """The same where weights or contexts are off the device: `run` computes a scheduler's block in
    which every batch is full. Nothing is left of it."""
    each = max(1, min(plan.context - 1, plan.longest_tokens - 1, plan.prefill_tokens))
    count = min(plan.batch_size, -(-plan.prefill_tokens // each)) * plan.batches
    for _ in range(count):
        scheduler.add(Sequence(Request(-1, "warm-up", ""), 0, array("i", [0] * each), each, 1))
    with torch.inference_mode():
        run(scheduler.next_block())
    scheduler.abandon()
    scheduler.prompt_tokens = 0


def widest_pass(model: CutModel, cache: KVCache, plan: Plan, device: torch.device) -> None:
    """Prefill a pass's most tokens, with the logits of every place; the cache is empty after."""
    longest = min(plan.context - 1, plan.prefill_tokens, plan.kv_tokens)
    each = min(longest, cache.pool.blocks * cache.block_tokens)
    sequences: list[Sequence] = []
    left = plan.prefill_tokens
    while left > 0 and len(sequences) < plan.batch_size:
        tokens = min(left, each)
        sequence = Sequence(Request(-1, "warm-up", ""), 0, array("i", [0] * tokens), tokens, 1)
        if cache.blocks_for(tokens) > cache.pool.free:
            break
        cache.open(sequence)
        cache.grow(sequence, tokens)
        sequences.append(sequence)
        left -= tokens
    with torch.inference_mode():
        batch = pack([Segment(s, len(s.tokens)) for s in sequences], cache, device)
        model.prelude(batch)
        for layer in range(len(model.layers)):
            model.run_layer(layer, batch)
        assert batch.hidden is not None
        rows = batch.hidden[0, :1].expand(plan.batch_size, -1).contiguous()
        model.head(rows).argmax(-1)
    for sequence in sequences:
        cache.close(sequence)
