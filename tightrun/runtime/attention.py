"""The one attention function that every model calls, and its kernels.

transformers hands each layer's query, key and value to the function registered here. It finds the
batch through the attention module, stores the new keys and values and attends over the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface

from tightrun.runtime.batch import Batch
from tightrun.runtime.kv_layout import LayerCache

NAME = "tightrun"
# Seen on the way to the attention call, without meaning for what it computes.
HARMLESS = {"position_ids", "use_cache", "output_router_logits", "cache_position", "is_causal"}
DECODE_GROUP = 16
QUERY_SLICE = 256


class UnsupportedAttentionError(ValueError):
    """The model asks its attention for something that is not computed here."""


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """What a layer asks of its attention. `sinks` are logits `[q_heads]` of the softmax alone."""

    scaling: float
    window: int | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None


class AttentionKernel(Protocol):
    """Stores new keys and values and attends over the cache.

    query `[q_heads, tokens, key_dim]`, key and value `[kv_heads, tokens, dim]`, any strides;
    `attend` returns `[tokens, q_heads, value_dim]`.
    """

    name: str

    def store(
        self, cache: LayerCache, key: torch.Tensor, value: torch.Tensor, batch: Batch
    ) -> None: ...

    def attend(
        self, cache: LayerCache, query: torch.Tensor, batch: Batch, spec: AttentionSpec
    ) -> torch.Tensor: ...


class AttentionCall(Protocol):
    """Who answers the attention call of the layer that runs now."""

    def attention(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        spec: AttentionSpec,
    ) -> torch.Tensor: ...


def attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The registered function: query `[1, q_heads, tokens, dim]`, out `[1, tokens, q_heads, dim]`.

    Raises UnsupportedAttentionError for a keyword whose meaning is not known here, because
    ignoring one silently gives wrong text.
    """
    call: AttentionCall = module.tightrun_call  # type: ignore[assignment]
    asked = sorted(
        k for k, v in others.items() if k not in HARMLESS and v is not None and v is not False
    )
    if attention_mask is not None:
        asked.append("a mask")
    if dropout:
        asked.append("dropout")
    if False in (others.get("is_causal"), getattr(module, "is_causal", None)):
        asked.append("two-way attention")
    if asked:
        raise UnsupportedAttentionError(f"its attention asks for {', '.join(asked)}")
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    spec = AttentionSpec(float(scaling), sliding_window or None, softcap, s_aux)
    out = call.attention(module, query, key, value, spec)
    return out[None], None


def tell_attention_modules(layer: nn.Module, call: AttentionCall) -> None:
    """Make `call` known to every module of the layer, whichever of them attends."""
    for module in layer.modules():
        object.__setattr__(module, "tightrun_call", call)


def register() -> None:
    """Make the function known to transformers; calling it twice is harmless."""
    AttentionInterface.register(NAME, attention_forward)


class TorchAttention:
    """Plain torch on any device: the reference, and the path where no faster kernel applies."""

    name = "torch"

    def store(
        self, cache: LayerCache, key: torch.Tensor, value: torch.Tensor, batch: Batch
    ) -> None:
        slots = on_device(batch, "slots", key.device)
        if batch.padding:
            slots = slots[: -batch.padding]
        block, offset = slots // cache.block_tokens, slots % cache.block_tokens
        count = slots.shape[0]
        cache.keys[block, :, offset] = key[:, :count].transpose(0, 1)
        cache.values[block, :, offset] = value[:, :count].transpose(0, 1)

    def attend(
        self, cache: LayerCache, query: torch.Tensor, batch: Batch, spec: AttentionSpec
    ) -> torch.Tensor:
        heads, tokens, _ = query.shape
        out = query.new_zeros(tokens, heads, cache.values.shape[-1])
        lengths = batch.query_len.tolist()
        contexts = batch.context_len.tolist()
        starts = batch.query_start.tolist()
        table = on_device(batch, "block_table", query.device)
        # Grouping by length keeps the gathered, padded rows of a group nearly full.
        single = sorted((i for i, n in enumerate(lengths) if n == 1), key=contexts.__getitem__)
        for at in range(0, len(single), DECODE_GROUP):
            group = single[at : at + DECODE_GROUP]
            rows = torch.tensor([starts[i] for i in group], device=query.device)
            seen = torch.tensor([contexts[i] + 1 for i in group], device=query.device)
            blocks = -(-(contexts[group[-1]] + 1) // cache.block_tokens)
            index = torch.tensor(group, device=query.device)
            out[rows] = _decode(cache, query[:, rows], table[index, :blocks], seen, spec)
        for i, length in enumerate(lengths):
            if length > 1:
                chunk = slice(starts[i], starts[i] + length)
                keys, values = _gather(cache, table[i], contexts[i] + length)
                out[chunk] = _prefill(query[:, chunk], keys, values, contexts[i], spec)
        return out


def on_device(batch: Batch, name: str, device: torch.device) -> torch.Tensor:
    """An index array of the batch on the device, sent once per pass."""
    if name not in batch.on_device:
        batch.on_device[name] = getattr(batch, name).to(device, non_blocking=True).long()
    return batch.on_device[name]


def _gather(
    cache: LayerCache, table: torch.Tensor, tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first `tokens` keys and values of one sequence, `[kv_heads, tokens, dim]`."""
    blocks = table[: -(-tokens // cache.block_tokens)]
    return tuple(
        side.index_select(0, blocks).transpose(0, 1).flatten(1, 2)[:, :tokens]
        for side in (cache.keys, cache.values)
    )  # type: ignore[return-value]


def _decode(
    cache: LayerCache,
    query: torch.Tensor,
    table: torch.Tensor,
    seen: torch.Tensor,
    spec: AttentionSpec,
) -> torch.Tensor:
    """One query token for each of n sequences: query `[q_heads, n, dim]`, out `[n, q_heads, dim]`.

    Scores are formed block by block, so that the gathered keys are never permuted.
    """
    heads, count, _ = query.shape
    kv_heads, size = cache.keys.shape[1], cache.block_tokens
    blocks = table.shape[1]
    keys = cache.keys[table]  # [n, blocks, kv_heads, block_tokens, dim]
    values = cache.values[table]
    position = torch.arange(blocks * size, device=query.device)
    visible = position < seen[:, None]
    if spec.window is not None:
        visible &= position >= seen[:, None] - spec.window
    # Unused places may hold anything, NaN included, and 0 * NaN is NaN.
    values = values.masked_fill(~visible.view(count, blocks, 1, size, 1), 0)
    grouped = query.transpose(0, 1).reshape(count, 1, kv_heads, heads // kv_heads, -1)
    scores = torch.matmul(grouped, keys.transpose(-1, -2))
    scores = scores.permute(0, 2, 3, 1, 4).reshape(count, heads, blocks * size)
    weights = _softmax(scores, visible[:, None], spec, heads_dim=1).to(query.dtype)
    weights = weights.view(count, kv_heads, -1, blocks, size).permute(0, 3, 1, 2, 4)
    return torch.matmul(weights, values).sum(1).reshape(count, heads, -1)


def _prefill(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, context: int, spec: AttentionSpec
) -> torch.Tensor:
    """Causal attention of one sequence's chunk: query `[q_heads, tokens, dim]`, out token-major."""
    heads, tokens, _ = query.shape
    total = keys.shape[1]
    plain = spec.softcap is None and spec.sinks is None
    if plain and context == 0 and (spec.window is None or spec.window >= total):
        out = functional.scaled_dot_product_attention(
            query[None], keys[None], values[None], is_causal=True, scale=spec.scaling,
            enable_gqa=keys.shape[0] != heads,
        )  # fmt: skip
        return out[0].transpose(0, 1)
    parts = [
        _masked(query[:, at : at + QUERY_SLICE], keys, values, context + at, spec)
        for at in range(0, tokens, QUERY_SLICE)
    ]
    return torch.cat(parts, 1).transpose(0, 1)


def _masked(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, first: int, spec: AttentionSpec
) -> torch.Tensor:
    """Attention of some query rows, the first at position `first`, with everything spelled out."""
    heads, rows, dim = query.shape
    kv_heads = keys.shape[0]
    # What lies before the window of the first row may hold anything, NaN included.
    seen = 0 if spec.window is None else max(0, first + 1 - spec.window)
    keys, values = keys[:, seen : first + rows], values[:, seen : first + rows]
    row = torch.arange(first, first + rows, device=query.device)[:, None]
    column = torch.arange(seen, first + rows, device=query.device)
    visible = column <= row
    if spec.window is not None:
        visible &= column > row - spec.window
    folded = query.reshape(kv_heads, -1, dim)
    scores = torch.matmul(folded, keys.transpose(-1, -2)).view(heads, rows, -1)
    weights = _softmax(scores, visible, spec, heads_dim=0).to(query.dtype)
    out = torch.matmul(weights.view(kv_heads, -1, weights.shape[-1]), values)
    return out.view(heads, rows, -1)


def _softmax(
    scores: torch.Tensor, visible: torch.Tensor, spec: AttentionSpec, heads_dim: int
) -> torch.Tensor:
    """float32 softmax over the last dimension; a sink joins the denominator only."""
    scores = scores.float() * spec.scaling
    if spec.softcap is not None:
        scores = torch.tanh(scores / spec.softcap) * spec.softcap
    scores = scores.masked_fill(~visible, -torch.inf)
    if spec.sinks is None:
        return torch.softmax(scores, -1)
    shape = [1] * scores.dim()
    shape[heads_dim] = -1
    sinks = spec.sinks.float().view(shape).expand(*scores.shape[:-1], 1)
    return torch.softmax(torch.cat([scores, sinks], -1), -1)[..., :-1]
