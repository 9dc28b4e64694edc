"""How fast a kernel attends: by bytes of KV read for decode rows, by FLOPs for prompts."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import torch

from tightrun.core import Request
from tightrun.policies.shape import LayerShape, ModelShape
from tightrun.runtime.attention import AttentionKernel, AttentionSpec
from tightrun.runtime.batch import Batch, Segment, pack
from tightrun.runtime.kernel_choice import is_token_major
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.sequence import Sequence
from tightrun.runtime.stopwatch import SLOW_S, seconds_of

# Context of a sequence that decodes, and the KV of all of them: more than a processor's caches.
CONTEXT = 512
KV_BYTES = 64 * 2**20
MOST_SEQUENCES = 64
PROMPT = 384
PROMPTS = 4


@dataclass(frozen=True, slots=True)
class AttentionProbe:
    """One layer's attention: its shape, what it asks for, and the kernel that answers."""

    shape: ModelShape
    layer: LayerShape
    spec: AttentionSpec
    kernel: AttentionKernel
    block_tokens: int
    dtype: torch.dtype
    device: torch.device

    def call_s(self) -> float:
        """Seconds of a call with next to nothing to do."""
        return self._seconds(1, 0, 1)

    def decode_bytes_per_s(self, call_s: float) -> float:
        """KV bytes read per second by sequences of a usual context, one new token each, beside a
        call's `call_s`."""
        context = min(CONTEXT, self.shape.context - 1, self.layer.window or CONTEXT)
        each = (self.layer.key_width + self.layer.value_width) * self.dtype.itemsize * context
        count = max(1, min(MOST_SEQUENCES, KV_BYTES // each))
        return count * each / _beyond(call_s, self._seconds(count, context, 1))

    def prefill_flops_per_s(self, call_s: float) -> float:
        """FLOPs per second of prompts that attend to themselves, beside a call's `call_s`."""
        tokens = min(PROMPT, self.shape.context - 1)
        keys = tokens * (tokens + 1) // 2
        flops = 2.0 * self.layer.q_heads * (self.layer.key_dim + self.layer.value_dim) * keys
        seconds = self._seconds(1, 0, tokens)
        if PROMPTS * seconds > SLOW_S:
            return flops / _beyond(call_s, seconds)
        return PROMPTS * flops / _beyond(call_s, self._seconds(PROMPTS, 0, tokens))

    def _seconds(self, count: int, context: int, new: int) -> float:
        """Seconds of `count` sequences of which each has `new` tokens behind its context."""
        cache, batch = self._packed(count, context, new)
        rows, layer = count * new, self.layer
        query = self._rows(layer.q_heads, rows, layer.key_dim)
        key = self._rows(layer.kv_heads, rows, layer.key_dim)
        value = self._rows(layer.kv_heads, rows, layer.value_dim)
        place = cache.layers[0]

        def attend() -> None:
            self.kernel.store(place, key, value, batch)
            self.kernel.attend(place, query, batch, self.spec)

        return seconds_of(attend, self.device)

    def _rows(self, heads: int, rows: int, dim: int) -> torch.Tensor:
        """`[heads, rows, dim]` as a projection leaves them in memory: row by row."""
        made = torch.full((rows, heads, dim), 0.5, dtype=self.dtype, device=self.device)
        return made.transpose(0, 1)

    def _packed(self, count: int, context: int, new: int) -> tuple[KVCache, Batch]:
        size, tokens = self.block_tokens, context + new
        one = ModelShape((self.layer,), 0, 0, 0, 0, 0, self.shape.element_bytes, 0, 0)
        blocks = count * -(-tokens // size)
        cache = KVCache(
            one, blocks, size, count, tokens, self.dtype, self.device,
            token_major=is_token_major(self.kernel),
        )  # fmt: skip
        cache.layers[0].keys.fill_(0.5)
        cache.layers[0].values.fill_(0.5)
        segments = []
        for _ in range(count):
            known = array("i", [0] * tokens)
            sequence = Sequence(Request(0, "probe", ""), 0, known, tokens, 1)
            cache.open(sequence)
            cache.grow(sequence, tokens)
            sequence.computed = context
            segments.append(Segment(sequence, new))
        return cache, pack(segments, cache, self.device)


def _beyond(call_s: float, seconds: float) -> float:
    """Seconds beside a call's, which noise may have made the longer ones."""
    return max(seconds - call_s, 0.1 * seconds)
