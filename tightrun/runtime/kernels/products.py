"""The product of a linear layer in bfloat16, for processors that have none of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from tightrun.runtime.kernels.abi import LinearArgs
from tightrun.runtime.kernels.cpu import CpuKernels


def linear(kernels: CpuKernels, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x `[..., inner]` times weight `[columns, inner]` transposed, plus bias: `[..., columns]`.

    All in bfloat16; sums are kept in float32 and rounded once.
    """
    inner, columns = x.shape[-1], weight.shape[0]
    assert x.dtype == weight.dtype == torch.bfloat16
    assert weight.shape == (columns, inner)
    weight = weight if weight.stride(1) == 1 else weight.contiguous()
    rows = x.reshape(-1, inner)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    if bias is not None:
        assert bias.dtype == torch.bfloat16
        assert bias.shape == (columns,)
        bias = bias.contiguous()
    out = torch.empty(*x.shape[:-1], columns, dtype=x.dtype)
    args = LinearArgs(
        omp=kernels.openmp,
        x=rows.data_ptr(),
        weight=weight.data_ptr(),
        bias=None if bias is None else bias.data_ptr(),
        out=out.data_ptr(),
        x_stride=rows.stride(0),
        weight_stride=weight.stride(0),
        out_stride=columns,
        rows=rows.shape[0],
        inner=inner,
        columns=columns,
        threads=torch.get_num_threads(),
    )
    kernels.library.tightrun_linear(args)
    return out
