"""The widest pass once, before the run, so that the allocator has all it will ever need."""

from __future__ import annotations

from array import array

import torch

from tightrun.core import Request
from tightrun.policies.plan import Plan
from tightrun.runtime.batch import Segment, pack
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.model import CutModel
from tightrun.runtime.sequence import Sequence


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
