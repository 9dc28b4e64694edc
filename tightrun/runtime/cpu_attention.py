"""Attention on a CPU by the C++ kernels, where they were built and a layer's sizes fit them."""

from __future__ import annotations

import torch

from tightrun.runtime.attention import AttentionSpec
from tightrun.runtime.batch import Batch
from tightrun.runtime.kernels.cpu import CpuKernels
from tightrun.runtime.kv_layout import LayerCache


class CpuAttention:
    """The AttentionKernel over the compiled library."""

    name = "C++"

    def __init__(self, kernels: CpuKernels) -> None:
        self.kernels = kernels

    def store(
        self, cache: LayerCache, key: torch.Tensor, value: torch.Tensor, batch: Batch
    ) -> None:
        self.kernels.write_kv(key[None], value[None], cache.keys, cache.values, batch.slots)

    def attend(
        self, cache: LayerCache, query: torch.Tensor, batch: Batch, spec: AttentionSpec
    ) -> torch.Tensor:
        heads, tokens, _ = query.shape
        return self.kernels.attend(
            query[None],
            cache.keys,
            cache.values,
            batch.block_table,
            batch.query_start,
            batch.query_len,
            batch.context_len,
            scaling=spec.scaling,
            window=spec.window,
            softcap=spec.softcap,
            sinks=None if spec.sinks is None else spec.sinks.float().contiguous(),
            out=query.new_empty(tokens, heads, cache.values.shape[-1]),
        )
