"""How fast this machine computes and reads, measured beside the engine and not by it."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.jobs import ModelSize
from benchmarks.offload.models import llama_config
from benchmarks.report import say
from tightrun.cli.load_engine import cache_folder
from tightrun.runtime.fusing import fuse
from tightrun.runtime.kernels.cpu import CpuKernels
from tightrun.runtime.prepack import can_prepack, prepack

PIECE = 4 * 2**20
READ_BYTES = 2**30
READERS = (1, 2, 4)


@torch.inference_mode()
def as_in_work(module: nn.Module, rows: int) -> None:
    """The module multiplies as it does in the engine: weights laid out, or by the kernels."""
    if can_prepack(torch.device("cpu"), torch.bfloat16):
        prepack(module, rows)
    elif kernels := CpuKernels.load(cache_folder(os.environ) / "kernels", say):
        fuse(module, kernels)


def median_s(work: Callable[[], object], seconds: float = 0.3, at_least: int = 7) -> float:
    """Median seconds of `work`, called for about `seconds` and `at_least` so often."""
    work()
    taken: list[float] = []
    while len(taken) < at_least or sum(taken) < seconds:
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return median(taken)


class ComputeProbe:
    """One product of 256 rows, the same at every call: has the machine's speed changed?"""

    def __init__(self) -> None:
        self._linear = nn.Linear(1024, 2816, bias=False, dtype=torch.bfloat16)
        self._rows = torch.randn(256, 1024, dtype=torch.bfloat16)
        as_in_work(self._linear, 256)

    @torch.inference_mode()
    def __call__(self) -> float:
        """FLOP/s of the median product."""
        seconds = median_s(lambda: self._linear(self._rows), seconds=0.4, at_least=51)
        return 2 * 256 * 1024 * 2816 / seconds


class LayerProbe:
    """A layer of the model as transformers has it, multiplying as it does in work."""

    def __init__(self, size: ModelSize) -> None:
        from transformers.models.llama.modeling_llama import (
            LlamaDecoderLayer,
            LlamaRotaryEmbedding,
        )

        config = llama_config(size)
        config._attn_implementation = "sdpa"
        self.size = size
        self._layer: Any = LlamaDecoderLayer(config, 0).bfloat16().eval()
        self._rope: Any = LlamaRotaryEmbedding(config)
        as_in_work(self._layer, 512)

    @torch.inference_mode()
    def replay_s(self, sequences: int, tokens: int) -> float:
        """Seconds of the first `tokens` tokens of each sequence through the layer."""
        hidden = torch.randn(sequences, tokens, self.size.hidden, dtype=torch.bfloat16)
        rope = self._rope(hidden, torch.arange(tokens)[None])
        return median_s(lambda: self._layer(hidden, position_embeddings=rope))

    @torch.inference_mode()
    def project_s(self, rows: int) -> float:
        """Seconds of K and V of `rows` tokens from the attention's input, rope included."""
        states = torch.randn(rows, self.size.hidden, dtype=torch.bfloat16)
        attention = self._layer.self_attn
        cos, sin = self._rope(states[None], torch.arange(rows)[None])

        def project() -> torch.Tensor:
            keys = attention.k_proj(states).view(rows, self.size.kv_heads, -1).transpose(0, 1)
            attention.v_proj(states)
            first, second = keys.chunk(2, dim=-1)
            turned: torch.Tensor = keys * cos + torch.cat((-second, first), dim=-1) * sin
            return turned

        return median_s(project)

    @torch.inference_mode()
    def attend_s(self, sequences: int, context: int) -> float:
        """Seconds of one query token of each sequence attending to its context."""
        size = self.size
        query = torch.randn(sequences, size.heads, 1, size.head_dim).bfloat16()
        side = (sequences, size.kv_heads, context, size.head_dim)
        keys, values = (torch.randn(side).bfloat16() for _ in range(2))
        return median_s(
            lambda: functional.scaled_dot_product_attention(query, keys, values, enable_gqa=True)
        )


@torch.inference_mode()
def head_s(size: ModelSize, rows: int) -> float:
    """Seconds of the head on `rows` rows."""
    head = nn.Linear(size.hidden, size.vocab, bias=False, dtype=torch.bfloat16)
    states = torch.randn(rows, size.hidden, dtype=torch.bfloat16)
    as_in_work(head, rows)
    return median_s(lambda: head(states))


def disk_rate(files: Sequence[Path], total: int = READ_BYTES) -> float:
    """Bytes/s of reading from the files in order, beside the page cache: the best of one, two and
    four reads in flight."""
    pieces = _pieces(files, total)
    return max(_rate_of(pieces, readers) for readers in READERS)


def _rate_of(pieces: Sequence[tuple[Path, int]], readers: int) -> float:
    shares = [pieces[i::readers] for i in range(readers)]
    began = time.perf_counter()
    with ThreadPoolExecutor(readers) as pool:
        read = sum(pool.map(_read_direct, shares))
    return read / (time.perf_counter() - began)


def _pieces(files: Sequence[Path], total: int) -> list[tuple[Path, int]]:
    """(file, offset) of whole pieces, up to `total` bytes."""
    found = [
        (file, offset)
        for file in files
        for offset in range(0, file.stat().st_size - PIECE + 1, PIECE)
    ]
    return found[: max(1, total // PIECE)]


def _read_direct(pieces: Sequence[tuple[Path, int]]) -> int:
    buffer = mmap.mmap(-1, PIECE)
    read = 0
    with ExitStack() as opened:
        descriptors: dict[Path, int] = {}
        for file, offset in pieces:
            if file not in descriptors:
                descriptors[file] = os.open(file, os.O_RDONLY | os.O_DIRECT)
                opened.callback(os.close, descriptors[file])
            read += os.preadv(descriptors[file], [buffer], offset)
    return read
