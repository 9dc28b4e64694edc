"""Attention on CUDA by torch's flash attention over the paged cache.

Chosen only where it agrees with the plain path on a small batch at load: page sizes, head sizes
and architectures that flash attention serves change between releases and cards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from tightrun.core import Request
from tightrun.policies.shape import LayerShape, ModelShape
from tightrun.runtime.attention import AttentionSpec, TorchAttention, on_device
from tightrun.runtime.batch import Batch, Segment, pack
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.kv_layout import LayerCache
from tightrun.runtime.sequence import Sequence

TOLERANCE = 0.02
FLASH_PAGE_TOKENS = 256


class VarlenAttention:
    """The AttentionKernel over torch's flash attention with a block table.

    The cache is token-major in memory. Softcap and sinks take the plain path.
    """

    name = "flash"

    def __init__(self) -> None:
        self._plain = TorchAttention()

    def store(
        self, cache: LayerCache, key: torch.Tensor, value: torch.Tensor, batch: Batch
    ) -> None:
        arrays = batch.on_device
        if "slot blocks" not in arrays:
            slots = on_device(batch, "slots", key.device)
            slots = slots[: -batch.padding] if batch.padding else slots
            arrays["slot blocks"] = slots // cache.block_tokens
            arrays["slot offsets"] = slots % cache.block_tokens
        place = arrays["slot blocks"], arrays["slot offsets"]
        count = place[0].shape[0]
        for side, new in ((cache.keys, key), (cache.values, value)):
            side.transpose(1, 2)[place] = new[:, :count].transpose(0, 1)

    def attend(
        self, cache: LayerCache, query: torch.Tensor, batch: Batch, spec: AttentionSpec
    ) -> torch.Tensor:
        if spec.softcap is not None or spec.sinks is not None or batch.padding:
            return self._plain.attend(cache, query, batch, spec)
        used = batch.context_len + batch.query_len
        arrays = batch.on_device
        if "used" not in arrays:
            ends = torch.cat([batch.query_start, batch.query_start[-1:] + batch.query_len[-1:]])
            arrays["ends"] = ends.to(query.device, non_blocking=True)
            arrays["used"] = used.to(query.device, non_blocking=True)
        if "pages" not in arrays:
            arrays["pages"] = on_device(batch, "block_table", query.device).to(torch.int32)
        return _flash(
            query,
            cache.keys.transpose(1, 2),
            cache.values.transpose(1, 2),
            arrays["ends"],
            None,
            int(batch.query_len.max()),
            int(used.max()),
            spec,
            seqused_k=arrays["used"],
            block_table=arrays["pages"],
        )


class GatheredVarlenAttention(VarlenAttention):
    """The same for blocks that flash attention does not page by, such as those of a workspace.

    The keys of a batch are gathered side by side first. Device memory is some eighty times as fast
    as the link they came over, so reading them twice does not show.
    """

    name = "flash, gathered"

    def attend(
        self, cache: LayerCache, query: torch.Tensor, batch: Batch, spec: AttentionSpec
    ) -> torch.Tensor:
        if spec.softcap is not None or spec.sinks is not None or batch.padding:
            return self._plain.attend(cache, query, batch, spec)
        used = batch.context_len + batch.query_len
        device, arrays = query.device, batch.on_device
        if "owner" not in arrays:
            ends = torch.cat([batch.query_start, batch.query_start[-1:] + batch.query_len[-1:]])
            key_ends = torch.nn.functional.pad(used.cumsum(0), (1, 0)).to(torch.int32)
            owner = torch.repeat_interleave(torch.arange(len(used)), used.long())
            position = torch.arange(len(owner)) - key_ends.long()[owner]
            arrays["ends"] = ends.to(device, non_blocking=True)
            arrays["key_ends"] = key_ends.to(device, non_blocking=True)
            arrays["owner"] = owner.to(device, non_blocking=True)
            arrays["nth"] = (position // cache.block_tokens).to(device, non_blocking=True)
            arrays["offset"] = (position % cache.block_tokens).to(device, non_blocking=True)
        if "key blocks" not in arrays:  # of each layer's own where some are in a workspace
            table = on_device(batch, "block_table", device)
            arrays["key blocks"] = table[arrays["owner"], arrays["nth"]]
        block = arrays["key blocks"]
        keys, values = (
            side.transpose(1, 2)[block, arrays["offset"]] for side in (cache.keys, cache.values)
        )
        return _flash(
            query,
            keys,
            values,
            arrays["ends"],
            arrays["key_ends"],
            int(batch.query_len.max()),
            int(used.max()),
            spec,
        )


def _flash(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    query_ends: torch.Tensor,
    key_ends: torch.Tensor | None,
    most_queries: int,
    most_keys: int,
    spec: AttentionSpec,
    **paged: torch.Tensor,
) -> torch.Tensor:
    """`[rows, heads, dim]` for a query `[heads, rows, dim]` and keys `[..., kv heads, dim]`."""
    # What torch.nn.attention.varlen calls, without the layers in between: in a decode pass they
    # take several times as long as the kernel.
    out: torch.Tensor = torch.ops.aten._flash_attention_forward(
        query.transpose(0, 1).contiguous(),
        keys,
        values,
        query_ends,
        key_ends,
        most_queries,
        most_keys,
        0.0,
        spec.window is None,
        False,
        scale=spec.scaling,
        window_size_left=-1 if spec.window is None else spec.window - 1,
        window_size_right=0,
        **paged,
    )[0]
    return out


def _takes(argument: str) -> bool:
    """Whether this torch's flash attention has the argument; that of 2.11 knows no pages."""
    schema = torch.ops.aten._flash_attention_forward.default._schema
    return any(argument == known.name for known in schema.arguments)


def try_varlen(
    shape: ModelShape,
    block_tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    notify: Callable[[str], None],
) -> VarlenAttention | None:
    """The flash path if it exists here and agrees with the plain one; says why not otherwise."""
    if dtype == torch.float32:
        return None  # exactness in float32 is the plain path's
    kinds = {(x.q_heads, x.kv_heads, x.key_dim, x.value_dim): x for x in shape.layers}
    refused = ""
    for kernel in _candidates(block_tokens):
        reasons = (_why_not(kernel, x, block_tokens, dtype, device) for x in kinds.values())
        refused = next(filter(None, reasons), "")
        if not refused:
            return kernel
    notify(f"attention runs in plain torch: {refused}")
    return None


def _candidates(block_tokens: int) -> Iterator[VarlenAttention]:
    if _takes("block_table") and block_tokens % FLASH_PAGE_TOKENS == 0:
        yield VarlenAttention()
    yield GatheredVarlenAttention()


def _why_not(
    kernel: VarlenAttention,
    layer: LayerShape,
    block_tokens: int,
    dtype: torch.dtype,
    device: torch.device,
) -> str:
    """Why the kernel cannot serve the layer; empty if it can."""
    try:
        distance = _distance(kernel, layer, block_tokens, dtype, device)
    except (RuntimeError, ValueError, TypeError) as error:
        return f"flash attention refuses: {str(error).splitlines()[0]}"
    if not distance <= TOLERANCE:
        return f"flash attention is {distance:.1%} off here"
    return ""


def _distance(
    kernel: VarlenAttention,
    layer: LayerShape,
    block_tokens: int,
    dtype: torch.dtype,
    device: torch.device,
) -> float:
    """Largest relative distance from the plain path, over a ragged prefill and a decode pass."""
    shape = ModelShape((layer,), 0, 0, 0, 0, 0, 0, 0, 0)
    longest = 2 * block_tokens
    cache = KVCache(shape, 6, block_tokens, 3, longest, dtype, device, token_major=True)
    generator = torch.Generator(device).manual_seed(0)
    sequences = [
        Sequence(Request(i, "check", ""), 0, [0] * n, n, 1)
        for i, n in enumerate((block_tokens + 7, 5, block_tokens // 2))
    ]
    for sequence in sequences:
        cache.open(sequence)
        cache.grow(sequence, len(sequence.tokens))
    spec = AttentionSpec(layer.key_dim**-0.5, layer.window)
    worst = 0.0
    for held_back in (1, 0):
        batch = pack([Segment(s, s.uncomputed - held_back) for s in sequences], cache, device)
        q, k, v = (
            torch.randn(heads, batch.tokens, dim, generator=generator, device=device).to(dtype)
            for heads, dim in (
                (layer.q_heads, layer.key_dim),
                (layer.kv_heads, layer.key_dim),
                (layer.kv_heads, layer.value_dim),
            )
        )
        kernel.store(cache.layers[0], k, v, batch)
        got = kernel.attend(cache.layers[0], q, batch, spec).float()
        expected = TorchAttention().attend(cache.layers[0], q, batch, spec).float()
        worst = max(worst, float((got - expected).norm() / expected.norm()))
        for segment in batch.segments:
            segment.sequence.computed += segment.tokens
    return worst
