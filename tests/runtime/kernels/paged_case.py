"""A ragged batch over a paged cache, and what plain torch in float32 makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tightrun.runtime.kernels.cpu import CpuKernels


@dataclass(frozen=True)
class Shape:
    q_heads: int = 8
    kv_heads: int = 2
    head_dim: int = 64
    value_head_dim: int | None = None
    block_tokens: int = 16
    dtype: torch.dtype = torch.float32

    @property
    def widths(self) -> tuple[int, int]:
        return self.head_dim, self.value_head_dim or self.head_dim


@dataclass
class PagedCase:
    """Sequences given as (context, chunk) lengths; what they do not fill of the cache is NaN."""

    shape: Shape
    lengths: list[tuple[int, int]]
    keys: list[Tensor]
    values: list[Tensor]
    q: Tensor
    caches: tuple[Tensor, Tensor]
    block_table: Tensor
    q_start: Tensor
    q_len: Tensor
    context_len: Tensor

    @classmethod
    def make(
        cls,
        kernels: CpuKernels,
        shape: Shape,
        lengths: list[tuple[int, int]],
        scale: float = 1.0,
    ) -> PagedCase:
        generator = torch.Generator().manual_seed(0)
        (width, value_width), bt, heads = shape.widths, shape.block_tokens, shape.kv_heads

        def randn(heads: int, tokens: int, width: int) -> Tensor:
            x = scale * torch.randn(1, heads, tokens, width, generator=generator)
            return x.to(shape.dtype)

        totals = [context + chunk for context, chunk in lengths]
        counts = [-(-n // bt) for n in totals]
        nan = torch.full((), float("nan"), dtype=shape.dtype)
        blocks = sum(counts) + 2
        chunks = torch.tensor([chunk for _, chunk in lengths], dtype=torch.int32)
        case = cls(
            shape,
            lengths,
            keys=[randn(heads, n, width) for n in totals],
            values=[randn(heads, n, value_width) for n in totals],
            q=randn(shape.q_heads, int(chunks.sum()), width),
            caches=(
                nan.repeat(blocks, heads, bt, width),
                nan.repeat(blocks, heads, bt, value_width),
            ),
            block_table=torch.full((len(lengths), max(counts) + 1), -1, dtype=torch.int32),
            q_start=(chunks.cumsum(0) - chunks).to(torch.int32),
            q_len=chunks,
            context_len=torch.tensor([context for context, _ in lengths], dtype=torch.int32),
        )
        shuffled = torch.randperm(blocks, generator=generator).to(torch.int32)
        for row, count, k, v in zip(case.block_table, counts, case.keys, case.values, strict=True):
            row[:count], shuffled = shuffled[:count], shuffled[count:]
            at = torch.arange(k.shape[2])
            kernels.write_kv(k, v, *case.caches, row[at // bt].long() * bt + at % bt)
        return case

    def attend(self, kernels: CpuKernels, **options: Any) -> Tensor:
        tokens = self.q.shape[2]
        out = torch.full((tokens, self.shape.q_heads, self.shape.widths[1]), 7.0).to(self.q.dtype)
        arrays = self.block_table, self.q_start, self.q_len, self.context_len
        options = {"scaling": 0.125, "out": out} | options
        return kernels.attend(self.q, *self.caches, *arrays, **options)

    def expected(
        self,
        *,
        scaling: float = 0.125,
        window: int | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """[T, q_heads, Dv] in float32."""
        group = self.shape.q_heads // self.shape.kv_heads
        rows = []
        queries = self.q[0].float().split([chunk for _, chunk in self.lengths], dim=1)
        parts = zip(self.lengths, queries, self.keys, self.values, strict=True)
        for (context, chunk), q, keys, values in parts:
            k, v = (x[0].float().repeat_interleave(group, dim=0) for x in (keys, values))
            scores = q @ k.mT * scaling
            if softcap:
                scores = softcap * torch.tanh(scores / softcap)
            back = context + torch.arange(chunk)[:, None] - torch.arange(context + chunk)
            unseen = (back < 0) | (back >= (window or context + chunk))
            scores = scores.masked_fill(unseen, float("-inf"))
            if sinks is not None:
                scores = torch.cat([scores, sinks.view(-1, 1, 1).expand(-1, chunk, 1)], dim=-1)
            rows.append((scores.softmax(-1)[..., : context + chunk] @ v).transpose(0, 1))
        return torch.cat(rows)

    def assert_attends(self, kernels: CpuKernels, **options: Any) -> None:
        """The kernel's output is the expected one, to the rounding of the data type."""
        bf16 = self.shape.dtype == torch.bfloat16
        rtol, atol = (2e-2, 1e-2) if bf16 else (1e-4, 1e-5)
        out = self.attend(kernels, **options).float()
        torch.testing.assert_close(out, self.expected(**options), rtol=rtol, atol=atol)
