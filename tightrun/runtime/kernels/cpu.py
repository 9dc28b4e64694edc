"""The CPU kernels as torch functions: a paged KV cache written, and attended to."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tightrun.runtime.kernels.abi import (
    AttendArgs,
    OpenMp,
    WriteArgs,
    open_library,
    torch_openmp,
)
from tightrun.runtime.kernels.build import KernelsUnavailableError, build, find_compiler

DTYPES = (torch.float32, torch.bfloat16)
MAX_HEAD_DIM = 256
_FAULTS = {
    1: "rows of a sequence lie outside q, or a length is negative",
    2: "a block or slot lies outside the cache, or the block table is too short",
    3: "no memory for the workspace",
}


@dataclass(frozen=True, slots=True)
class CpuKernels:
    """The loaded library.

    One side of a cache, K or V, is `[blocks, kv_heads, block_tokens, width]`, strided over blocks.
    """

    library: ctypes.CDLL
    openmp: OpenMp

    @classmethod
    def load(
        cls, cache_dir: Path, notify: Callable[[str], None], compiler: str | None = None
    ) -> CpuKernels | None:
        """The kernels, compiled into `cache_dir` if need be; None, and why, where there are none.

        `compiler` is what the user's $CXX names, if anything.
        """
        try:
            library = open_library(build(cache_dir, find_compiler(compiler)))
            kernels = cls(library, torch_openmp())
            _self_check(kernels)
        except KernelsUnavailableError as error:
            notify(f"attention runs in plain torch, several times slower: {error}")
            return None
        return kernels

    @staticmethod
    def supports(dtype: torch.dtype, head_dim: int, value_head_dim: int) -> bool:
        """Whether a layer of these sizes can be attended to here."""
        widths = (head_dim, value_head_dim)
        return dtype in DTYPES and all(w % 8 == 0 and 0 < w <= MAX_HEAD_DIM for w in widths)

    def write_kv(
        self, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor
    ) -> None:
        """Puts row t of k `[1, kv_heads, T, D]` and v `[1, kv_heads, T, Dv]` where slots[t] says.

        A slot is `block * block_tokens + offset` (int64, `[T]`); -1 skips the row.
        """
        k, v = _rows(k), _rows(v)
        _check_cache(k, k_cache, k.shape[1])
        _check_cache(v, v_cache, k.shape[1])
        assert slots.dtype == torch.int64
        assert slots.shape == (k.shape[2],) == (v.shape[2],)
        slots = slots.contiguous()
        size = k.element_size()
        args = WriteArgs(
            omp=self.openmp,
            k=k.data_ptr(),
            v=v.data_ptr(),
            k_cache=k_cache.data_ptr(),
            v_cache=v_cache.data_ptr(),
            slots=slots.data_ptr(),
            k_head_stride=k.stride(1) * size,
            k_token_stride=k.stride(2) * size,
            v_head_stride=v.stride(1) * size,
            v_token_stride=v.stride(2) * size,
            k_block_stride=k_cache.stride(0) * size,
            v_block_stride=v_cache.stride(0) * size,
            key_width=k.shape[3] * size,
            value_width=v.shape[3] * size,
            tokens=k.shape[2],
            kv_heads=k.shape[1],
            blocks=k_cache.shape[0],
            block_tokens=k_cache.shape[2],
            threads=torch.get_num_threads(),
        )
        _raise_fault(self.library.tightrun_write_kv(args))

    def attend(
        self,
        q: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        block_table: Tensor,
        q_start: Tensor,
        q_len: Tensor,
        context_len: Tensor,
        *,
        scaling: float,
        window: int | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
        out: Tensor,
    ) -> Tensor:
        """Causal attention of a packed batch; fills and returns `out`, `[T, q_heads, Dv]`.

        q is `[1, q_heads, T, D]`, any strides. Sequence s owns the rows q_start[s] to
        q_start[s] + q_len[s], its keys are the first context_len[s] + q_len[s] of the blocks
        block_table[s] (int32), the chunk's own already written. Rows of no sequence become zero.
        A query sees keys less than `window` positions back. `softcap` and `sinks` (`[q_heads]`)
        as in Gemma 2 and gpt-oss. Sums and softmax are in float32.
        """
        q = _rows(q)
        _check_cache(q, k_cache, k_cache.shape[1])
        heads, tokens = q.shape[1], q.shape[2]
        _check_cache(q, v_cache, k_cache.shape[1], width=v_cache.shape[3])
        assert self.supports(q.dtype, q.shape[3], v_cache.shape[3])
        assert scaling > 0
        assert heads % k_cache.shape[1] == 0
        assert out.shape == (tokens, heads, v_cache.shape[3])
        assert out.is_contiguous()
        assert out.dtype == q.dtype
        assert block_table.dtype == torch.int32
        assert block_table.stride(1) == 1 or block_table.shape[1] <= 1
        sequences = block_table.shape[0]
        q_start, q_len, context_len = (_int32(x, sequences) for x in (q_start, q_len, context_len))
        if sinks is not None:
            sinks = sinks.detach().to(torch.float32).contiguous()
            assert sinks.shape == (heads,)
        args = AttendArgs(
            omp=self.openmp,
            q=q.data_ptr(),
            k=k_cache.data_ptr(),
            v=v_cache.data_ptr(),
            out=out.data_ptr(),
            block_table=block_table.data_ptr(),
            q_start=q_start.data_ptr(),
            q_len=q_len.data_ptr(),
            context_len=context_len.data_ptr(),
            sinks=None if sinks is None else sinks.data_ptr(),
            q_head_stride=q.stride(1),
            q_token_stride=q.stride(2),
            k_block_stride=k_cache.stride(0),
            v_block_stride=v_cache.stride(0),
            block_table_stride=block_table.stride(0),
            sequences=sequences,
            tokens=tokens,
            q_heads=heads,
            kv_heads=k_cache.shape[1],
            key_width=q.shape[3],
            value_width=v_cache.shape[3],
            blocks=min(k_cache.shape[0], v_cache.shape[0]),
            block_tokens=k_cache.shape[2],
            table_width=block_table.shape[1],
            window=window or 0,
            threads=torch.get_num_threads(),
            is_bf16=int(q.dtype == torch.bfloat16),
            scaling=scaling,
            softcap=softcap or 0.0,
        )
        _raise_fault(self.library.tightrun_attend(args))
        return out


def _self_check(kernels: CpuKernels) -> None:
    """A compiler may be wrong; a chunk behind a context of three blocks is computed both ways."""
    for dtype in DTYPES:
        generator = torch.Generator().manual_seed(1)
        k, v = torch.randn(2, 1, 2, 44, 32, generator=generator).to(dtype)
        q = torch.randn(1, 4, 9, 32, generator=generator).to(dtype)
        caches = torch.zeros(2, 3, 2, 16, 32, dtype=dtype)
        kernels.write_kv(k, v, caches[0], caches[1], torch.arange(44))
        table = torch.arange(3, dtype=torch.int32)[None]
        start, length, context = (torch.tensor([n], dtype=torch.int32) for n in (0, 9, 35))
        out = torch.empty(9, 4, 32, dtype=dtype)
        kernels.attend(q, caches[0], caches[1], table, start, length, context, scaling=0.2, out=out)
        keys, values = (x.float().repeat_interleave(2, dim=1) for x in (k, v))
        seen = torch.ones(9, 44).tril(35).bool()
        scores = (q.float() @ keys.mT * 0.2).masked_fill(~seen, float("-inf"))
        expected = (scores.softmax(-1) @ values)[0].transpose(0, 1)
        error = (out.float() - expected).abs().max().item()
        if not error < (1e-5 if dtype == torch.float32 else 3e-2):
            raise KernelsUnavailableError(
                f"the compiled kernels are wrong by {error:.1e} in {dtype}"
            )


def _rows(x: Tensor) -> Tensor:
    """[1, heads, tokens, width] with each row contiguous."""
    assert x.dim() == 4
    assert x.shape[0] == 1
    assert x.device.type == "cpu"
    return x if x.stride(3) == 1 else x.contiguous()


def _check_cache(x: Tensor, cache: Tensor, kv_heads: int, width: int | None = None) -> None:
    _, heads, block_tokens, cache_width = cache.shape
    assert cache.dtype == x.dtype
    assert cache.dtype in DTYPES
    assert (heads, cache_width) == (kv_heads, x.shape[3] if width is None else width)
    assert cache.stride()[1:] == (block_tokens * cache_width, cache_width, 1)
    assert block_tokens & (block_tokens - 1) == 0


def _int32(x: Tensor, length: int) -> Tensor:
    assert x.shape == (length,)
    return x.to(torch.int32).contiguous()


def _raise_fault(code: int) -> None:
    if code:
        raise AssertionError(_FAULTS[code]) if code != 3 else MemoryError(_FAULTS[code])
