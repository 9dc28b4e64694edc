"""Keys gathered side by side are the keys of the block table, with the borders flash is told of."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.runtime.stand_ins import sequence
from tightrun.policies.shape import LayerShape, ModelShape
from tightrun.runtime.attention import AttentionSpec, TorchAttention
from tightrun.runtime.batch import Segment, pack
from tightrun.runtime.cuda_attention import GatheredVarlenAttention
from tightrun.runtime.kv_cache import KVCache

HEADS, KV_HEADS, DIM = 4, 2, 8


def plain_flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cum_seq_q: torch.Tensor,
    cum_seq_k: torch.Tensor,
    _max_q: int,
    _max_k: int,
    dropout_p: float,
    is_causal: bool,
    return_debug_mask: bool,
    *,
    scale: float,
    window_size_left: int,
    window_size_right: int,
) -> tuple[torch.Tensor, None]:
    """What flash attention says it computes, one sequence at a time; queries end with the keys."""
    assert not dropout_p
    assert not return_debug_mask
    assert is_causal == (window_size_left < 0)
    assert window_size_right == 0
    assert key.is_contiguous()
    out = []
    for i in range(len(cum_seq_q) - 1):
        q = query[cum_seq_q[i] : cum_seq_q[i + 1]].transpose(0, 1)
        k, v = (
            x[cum_seq_k[i] : cum_seq_k[i + 1]].transpose(0, 1).repeat_interleave(2, 0)
            for x in (key, value)
        )
        rows = torch.arange(k.shape[1] - q.shape[1], k.shape[1])[:, None]
        columns = torch.arange(k.shape[1])
        seen = columns <= rows
        if window_size_left >= 0:
            seen &= columns >= rows - window_size_left
        scores = (q @ k.mT * scale).masked_fill(~seen, -torch.inf)
        out.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(out), None


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("token_major", [False, True])
def test_a_ragged_batch_attends_as_plain_torch_does(
    window: int | None, token_major: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", plain_flash)
    shape = ModelShape((LayerShape(HEADS, KV_HEADS, DIM, DIM, 0, 0),), 0, 0, 0, 0, 0, 4, 0, 64)
    cache = KVCache(
        shape, 12, 4, 3, 40, torch.float32, torch.device("cpu"), token_major=token_major
    )
    sequences = [sequence([0] * n) for n in (13, 4, 9)]
    for one in sequences:
        cache.open(one)
        cache.grow(one, len(one.tokens))
    for held_back in (1, 0):
        batch: Any = pack(
            [Segment(s, s.uncomputed - held_back) for s in sequences], cache, torch.device("cpu")
        )
        generator = torch.Generator().manual_seed(held_back)
        q, k, v = (
            torch.randn(heads, batch.tokens, DIM, generator=generator)
            for heads in (HEADS, KV_HEADS, KV_HEADS)
        )
        spec = AttentionSpec(0.3, window)
        kernel = GatheredVarlenAttention()
        kernel.store(cache.layers[0], k, v, batch)
        got = kernel.attend(cache.layers[0], q, batch, spec)
        expected = TorchAttention().attend(cache.layers[0], q, batch, spec)
        torch.testing.assert_close(got, expected)
        for segment in batch.segments:
            segment.sequence.computed += segment.tokens
