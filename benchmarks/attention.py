"""Attention of one layer on the CPU: the compiled kernels against plain torch, and the bound.

The bound of a case is the larger of its causal FLOPs over the best matrix-product rate and its
K and V bytes over the best rate of reading memory, both measured here in the same process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch.nn import functional

from benchmarks.arguments import benchmark_parser
from benchmarks.machine import hardware, hardware_name, versions
from benchmarks.report import number, publish, ratios_to, table
from tightrun.cli.load_engine import cache_folder
from tightrun.runtime.attention import AttentionSpec, TorchAttention
from tightrun.runtime.batch import Batch
from tightrun.runtime.cpu_attention import CpuAttention
from tightrun.runtime.kernels.cpu import CpuKernels
from tightrun.runtime.kv_layout import LayerCache

PEERS = ("torch", "sdpa")
BLOCK_TOKENS = 64
DTYPE = torch.bfloat16

Attend = Callable[[int], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Case:
    """Sequences as (context, chunk) lengths.

    As many caches as `layers` take turns, so that none is still in the processor's own.
    """

    name: str
    lengths: tuple[tuple[int, int], ...]
    q_heads: int
    kv_heads: int
    head_dim: int
    layers: int

    @property
    def tokens(self) -> int:
        return sum(chunk for _, chunk in self.lengths)

    @property
    def flops(self) -> int:
        seen = sum(chunk * context + chunk * (chunk + 1) // 2 for context, chunk in self.lengths)
        return 4 * seen * self.q_heads * self.head_dim

    @property
    def kv_bytes(self) -> int:
        row = 2 * self.kv_heads * self.head_dim * DTYPE.itemsize
        return row * sum(context + chunk for context, chunk in self.lengths)


def cases(quick: bool, seed: int) -> list[Case]:
    """The shapes of the throughput job (16 heads, 4 KV heads of 64), and of an 8B Llama."""
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randint(32, 384, (64,), generator=generator).tolist()
    first = [n for i, n in enumerate(prompts) if sum(prompts[: i + 1]) <= 2048]
    decode = tuple((n + 32, 1) for n in prompts)
    job = (16, 4, 64)
    layers = 2 if quick else 8
    large = (32, 8, 128, 1 if quick else 2)
    long = 4096 if quick else 32768
    return [
        Case("prefill, 2,048 tokens of prompts", tuple((0, n) for n in first), *job, 1),
        Case("decode, 64 rows", decode, *job, layers),
        Case("both, 63 rows and a prompt", (*decode[:-1], (0, 960)), *job, layers),
        Case(f"decode, 1 row behind {long:,}", ((long, 1),), *large),
        Case(f"prefill, 1,024 behind {long // 4:,}", ((long // 4, 1024),), *large),
    ]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a case computes on: a query, and per layer the paged cache."""

    case: Case
    query: torch.Tensor
    caches: list[LayerCache]
    batch: Batch

    @classmethod
    def make(cls, case: Case, seed: int) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        counts = [-(-(context + chunk) // BLOCK_TOKENS) for context, chunk in case.lengths]
        side = (sum(counts), case.kv_heads, BLOCK_TOKENS, case.head_dim)

        def randn(*size: int) -> torch.Tensor:
            return torch.randn(size, generator=generator).to(DTYPE)

        chunks = torch.tensor([chunk for _, chunk in case.lengths], dtype=torch.int32)
        table = torch.zeros(len(counts), max(counts), dtype=torch.int32)
        blocks = torch.randperm(sum(counts), generator=generator).to(torch.int32)
        for row, count, mine in zip(table, counts, torch.split(blocks, counts), strict=True):
            row[:count] = mine
        unused = torch.empty(1, case.tokens, dtype=torch.int64)
        batch = Batch(
            segments=[],
            input_ids=unused,
            positions=unused,
            slots=unused[0],
            query_start=(chunks.cumsum(0) - chunks).to(torch.int32),
            query_len=chunks,
            context_len=torch.tensor([c for c, _ in case.lengths], dtype=torch.int32),
            block_table=table,
            logit_rows=unused[0],
            logit_sequences=[],
        )
        query = randn(case.tokens, case.q_heads, case.head_dim).transpose(0, 1)
        caches = [LayerCache(randn(*side), randn(*side)) for _ in range(case.layers)]
        return cls(case, query, caches, batch)

    def paged(self, kernel: CpuAttention | TorchAttention) -> Attend:
        """Attention by one of tightrun's own kernels."""
        spec = AttentionSpec(scaling=self.case.head_dim**-0.5)
        return lambda layer: kernel.attend(self.caches[layer], self.query, self.batch, spec)

    def sdpa(self) -> Attend:
        """torch's attention, a call per sequence, its keys and values already side by side."""
        layers = [[self._sequence(cache, i) for i in range(len(self.case.lengths))]
                  for cache in self.caches]  # fmt: skip
        queries = torch.split(self.query, [chunk for _, chunk in self.case.lengths], dim=1)

        def attend(layer: int) -> torch.Tensor:
            parts = [
                _sdpa(query, *kv, context)
                for query, kv, (context, _) in zip(
                    queries, layers[layer], self.case.lengths, strict=True
                )
            ]
            return torch.cat(parts, dim=1).transpose(0, 1)

        return attend

    def _sequence(self, cache: LayerCache, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        total = sum(self.case.lengths[i])
        blocks = self.batch.block_table[i, : -(-total // BLOCK_TOKENS)]
        keys, values = (
            side[blocks].transpose(0, 1).flatten(1, 2)[:, :total].contiguous()
            for side in (cache.keys, cache.values)
        )
        return keys, values


def _sdpa(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, context: int
) -> torch.Tensor:
    heads, chunk, dim = query.shape
    if chunk == 1:  # the group as rows: several times faster than enable_gqa here
        query = query.reshape(1, keys.shape[0], -1, dim)
        out = functional.scaled_dot_product_attention(query, keys[None], values[None])
        return out.reshape(heads, 1, dim)
    options: dict[str, Any] = {"is_causal": True}
    if context:
        options = {"attn_mask": torch.ones(chunk, keys.shape[1]).tril(context).bool()}
    return functional.scaled_dot_product_attention(
        query[None], keys[None], values[None], enable_gqa=True, **options
    )[0]


def measure(rivals: dict[str, Attend], case: Case, runs: int) -> dict[str, list[float]]:
    """Seconds per layer of every run; the rivals take turns."""
    taken: dict[str, list[float]] = {name: [] for name in rivals}
    for run in range(runs + 1):
        for name, attend in rivals.items():
            began = time.perf_counter()
            for layer in range(case.layers):
                attend(layer)
            if run:
                taken[name].append((time.perf_counter() - began) / case.layers)
    return taken


def product_rate() -> float:
    """Best FLOP/s of a bfloat16 matrix product."""
    x, w = torch.randn(1024, 1024).to(DTYPE), torch.randn(2048, 1024).to(DTYPE)
    seconds = [_seconds(lambda: functional.linear(x, w)) for _ in range(20)]
    return 2 * 1024 * 1024 * 2048 / min(seconds)


def read_rate() -> float:
    """Best bytes/s of reading memory that is in no cache."""
    x = torch.ones(1 << 26)
    return 4 * (1 << 26) / min(_seconds(x.sum) for _ in range(10))


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def compare(
    case: Case, kernels: CpuKernels, peers: Sequence[str], runs: int, bound_s: float, seed: int
) -> dict[str, Any]:
    """One case as it goes into the result."""
    inputs = Inputs.make(case, seed)
    rivals = {"tightrun": inputs.paged(CpuAttention(kernels))}
    if "torch" in peers:
        rivals["torch"] = inputs.paged(TorchAttention())
    if "sdpa" in peers:
        rivals["sdpa"] = inputs.sdpa()
    outputs = [attend(0).float() for attend in rivals.values()]
    assert all(torch.allclose(out, outputs[0], rtol=0.05, atol=0.02) for out in outputs)
    seconds = measure(rivals, case, runs)
    rates: dict[str, float | None] = {
        name: case.tokens / median(seconds[name]) if name in seconds else None
        for name in ("tightrun", *PEERS)
    }
    theirs = {name: rates[name] for name in PEERS}
    return {
        "name": case.name,
        "tokens": case.tokens,
        "tokens_per_s": rates,
        "ratios": ratios_to(rates["tightrun"], theirs),
        "bound_share": bound_s / median(seconds["tightrun"]),
        "flops_per_s": case.flops / median(seconds["tightrun"]),
        "kv_bytes_per_s": case.kv_bytes / median(seconds["tightrun"]),
        "seconds": seconds,
    }


def row(result: dict[str, Any]) -> list[str]:
    """One line of the table for people."""
    median_ms = 1e3 * median(result["seconds"]["tightrun"])
    return [
        result["name"],
        f"{median_ms:.2f} ms",
        f"{result['flops_per_s'] / 1e9:.0f}",
        f"{result['kv_bytes_per_s'] / 1e9:.1f}",
        f"{100 * result['bound_share']:.0f} %",
        *(number(result["ratios"][peer]) for peer in PEERS),
    ]


@torch.inference_mode()
def main() -> None:
    told = benchmark_parser("attention", __doc__ or "", peers=PEERS, runs=9).parse_args()
    kernels = CpuKernels.load(cache_folder(os.environ), print)
    if kernels is None:
        raise SystemExit("there is nothing to compare without the compiled kernels")
    flops_per_s, bytes_per_s = product_rate(), read_rate()
    results = []
    for case in cases(told.quick, told.seed):
        bound_s = max(case.flops / flops_per_s, case.kv_bytes / bytes_per_s)
        results.append(compare(case, kernels, told.peers, told.runs, bound_s, told.seed))
    header = ["one layer, bfloat16", "median", "GFLOP/s", "GB/s of KV", "of bound",
              "x torch path", "x SDPA"]  # fmt: skip
    print(table(header, [row(result) for result in results]))
    machine = hardware()
    result = {
        "benchmark": "attention",
        "hardware": machine,
        "versions": versions(["tightrun", "torch"]),
        "ceilings": {"flops_per_s": flops_per_s, "bytes_per_s": bytes_per_s},
        "quick": told.quick,
        "seed": told.seed,
        "cases": results,
    }
    publish(result, "attention", hardware_name(machine))


if __name__ == "__main__":
    main()
