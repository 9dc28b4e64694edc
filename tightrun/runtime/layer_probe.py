"""How much longer a whole layer takes than its products alone: norms, rotation, attention, calls.

Recompute is decided from the first pass on, and what too rosy a rate drops has to be
written out again later.
"""

from __future__ import annotations

from array import array

import torch

from tightrun.core import Request
from tightrun.policies.hardware import Rates
from tightrun.policies.shape import ModelShape
from tightrun.runtime.batch import Segment, pack
from tightrun.runtime.device import Device
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.model import CutModel
from tightrun.runtime.sequence import Sequence

LENGTHS = (64, 64, 64, 64)
RUNS = 3
LEAST, MOST = 0.8, 4.0


def layer_factor(
    cut: CutModel,
    shape: ModelShape,
    rates: Rates,
    block_tokens: int,
    dtype: torch.dtype,
    device: Device,
    *,
    token_major: bool,
) -> float:
    """Seconds of the first layer over those of its products at the probed rate; the layer's
    weights are there. The best of some runs, held between LEAST and MOST."""
    one = ModelShape(shape.layers[:1], 0, 0, 0, 0, 0, shape.element_bytes, 0, 0)
    blocks = sum(-(-n // block_tokens) for n in LENGTHS)
    longest = min(shape.context - 1, max(LENGTHS))
    cache = KVCache(
        one, blocks, block_tokens, len(LENGTHS), longest, dtype, device.torch,
        token_major=token_major,
    )  # fmt: skip
    sequences = []
    for length in LENGTHS:
        tokens = min(length, longest)
        sequence = Sequence(Request(0, "probe", ""), 0, array("i", [0] * tokens), tokens, 1)
        cache.open(sequence)
        cache.grow(sequence, tokens)
        sequences.append(sequence)
    best = float("inf")
    with torch.inference_mode():
        batch = pack([Segment(s, len(s.tokens)) for s in sequences], cache, device.torch)
        cut.prelude(batch)
        first = batch.hidden
        for _ in range(RUNS):
            batch.hidden = first
            start = device.now()
            cut.run_layer(0, batch)
            device.settle(device.mark())
            best = min(best, device.now() - start)
    flops = 2.0 * shape.layers[0].dense_parameters * batch.tokens
    return min(MOST, max(LEAST, best * rates.flops_at(batch.tokens) / flops))
