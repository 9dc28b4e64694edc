"""The small steps between the matrix products, one pass over memory each.

They round where the eager modules of transformers round, so that bfloat16 results are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tightrun.runtime.kernels.abi import RotateArgs, RowsArgs
from tightrun.runtime.kernels.cpu import DTYPES, CpuKernels


def rms_norm(kernels: CpuKernels, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """weight * x / rms(x) over the last dimension, as Llama's norm: the quotient is rounded first.

    x is `[..., width]`, weight `[width]`, both float32 or both bfloat16; the result is contiguous.
    """
    rows = _rows(x)
    assert weight.shape == (x.shape[-1],)
    assert weight.dtype == x.dtype
    assert weight.is_contiguous()
    out = torch.empty(x.shape, dtype=x.dtype)
    kernels.library.tightrun_rms_norm(_rows_args(kernels, rows, weight, 0, out, eps))
    return out


def silu_mul(kernels: CpuKernels, gate: Tensor, up: Tensor, out: Tensor | None = None) -> Tensor:
    """silu(gate) * up, both `[..., width]`; silu is rounded first.

    `out` is contiguous and may be `gate` itself, which saves fresh memory; None: a new tensor.
    """
    assert gate.shape == up.shape
    assert gate.dtype == up.dtype
    gates, ups = _rows(gate), _rows(up)
    if out is None:
        out = torch.empty(gate.shape, dtype=gate.dtype)
    assert out.shape == gate.shape
    assert out.dtype == gate.dtype
    assert out.is_contiguous()
    kernels.library.tightrun_silu_mul(_rows_args(kernels, gates, ups, ups.stride(0), out, 0.0))
    return out


def rotate(kernels: CpuKernels, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: x * cos + rotate_half(x) * sin, as transformers' apply_rotary_pos_emb.

    x is `[1, heads, tokens, width]`, cos and sin `[1, tokens, rotated]` in its dtype; the numbers
    of a head behind `rotated` are copied. The result is laid out as `[1, tokens, heads, width]`.
    """
    _, heads, tokens, width = x.shape
    assert x.dtype in DTYPES
    assert x.dtype == cos.dtype == sin.dtype
    assert cos.shape == sin.shape == (1, tokens, cos.shape[2])
    assert cos.shape[2] % 2 == 0
    assert cos.shape[2] <= width
    x, cos, sin = (t if t.stride(-1) == 1 else t.contiguous() for t in (x, cos, sin))
    out = torch.empty(1, tokens, heads, width, dtype=x.dtype)
    args = RotateArgs(
        omp=kernels.openmp,
        x=x.data_ptr(),
        cos=cos.data_ptr(),
        sin=sin.data_ptr(),
        out=out.data_ptr(),
        x_head_stride=x.stride(1),
        x_token_stride=x.stride(2),
        cos_stride=cos.stride(1),
        sin_stride=sin.stride(1),
        tokens=tokens,
        heads=heads,
        width=width,
        rotated=cos.shape[2],
        threads=torch.get_num_threads(),
        is_bf16=int(x.dtype == torch.bfloat16),
    )
    kernels.library.tightrun_rotate(args)
    return out.transpose(1, 2)


def _rows(x: Tensor) -> Tensor:
    """[rows, width] with every row contiguous; a copy only where strides do not allow a view."""
    assert x.dtype in DTYPES
    assert x.device.type == "cpu"
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _rows_args(
    kernels: CpuKernels, x: Tensor, y: Tensor, y_stride: int, out: Tensor, eps: float
) -> RowsArgs:
    return RowsArgs(
        omp=kernels.openmp,
        x=x.data_ptr(),
        y=y.data_ptr(),
        out=out.data_ptr(),
        x_stride=x.stride(0),
        y_stride=y_stride,
        rows=x.shape[0],
        width=x.shape[1],
        threads=torch.get_num_threads(),
        is_bf16=int(x.dtype == torch.bfloat16),
        eps=eps,
    )
