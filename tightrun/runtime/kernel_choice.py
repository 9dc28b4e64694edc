"""Chooses the fastest attention kernel that serves every layer of a model on a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from tightrun.policies.shape import ModelShape
from tightrun.runtime.attention import AttentionKernel, TorchAttention
from tightrun.runtime.cpu_attention import CpuAttention
from tightrun.runtime.cuda_attention import VarlenAttention, try_varlen
from tightrun.runtime.kernels.cpu import CpuKernels


def choose_kernel(
    shape: ModelShape,
    block_tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    cache_dir: Path | None,
    compiler: str | None,
    notify: Callable[[str], None],
) -> AttentionKernel:
    """Compiled kernels on a CPU, flash attention on CUDA, else plain torch, which says so once.

    `cache_dir` is where compiled kernels are kept; None: plain torch on a CPU.
    """
    if device.type == "cuda":
        return try_varlen(shape, block_tokens, dtype, device, notify) or TorchAttention()
    fits = all(CpuKernels.supports(dtype, x.key_dim, x.value_dim) for x in shape.layers)
    if device.type == "cpu" and cache_dir is not None and fits:
        kernels = CpuKernels.load(cache_dir, notify, compiler)
        if kernels is not None:
            return CpuAttention(kernels)
    return TorchAttention()


def fusing_kernels(kernel: AttentionKernel, dtype: torch.dtype) -> CpuKernels | None:
    """The compiled library behind an attention kernel, where modules are fused by it as well."""
    if isinstance(kernel, CpuAttention) and dtype == torch.bfloat16:
        return kernel.kernels
    return None


def is_token_major(kernel: AttentionKernel) -> bool:
    """Whether the kernel wants the cache token-major in memory."""
    return isinstance(kernel, VarlenAttention)
