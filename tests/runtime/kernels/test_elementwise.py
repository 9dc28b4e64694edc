"""Norm, gated activation and rotary positions equal transformers' eager code, bfloat16 to a bit."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import (
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

from tightrun.runtime.kernels.elementwise import rms_norm, rotate, silu_mul

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)


def assert_same(ours, eager):
    """In bfloat16 nearly every number is the same, and none is off by more than two roundings."""
    assert ours.shape == eager.shape
    assert ours.dtype == eager.dtype
    if ours.dtype == torch.float32:
        torch.testing.assert_close(ours, eager, rtol=2e-6, atol=1e-6)
    else:
        units = (ours.view(torch.int16).int() - eager.view(torch.int16).int()).abs()
        assert units[eager != 0].max() <= 2
        assert (units != 0).float().mean() < 2e-3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(1, 1, 8), (1, 64, 1024), (300, 100), (2, 3, 200, 72), (0, 64)])
def test_rms_norm(kernels, dtype, size):
    norm = LlamaRMSNorm(size[-1], eps=1e-5).to(dtype)
    torch.nn.init.normal_(norm.weight)
    x = (5 * torch.randn(size)).to(dtype)
    ours = rms_norm(kernels, x, norm.weight.detach(), 1e-5)
    if x.numel() == 0:
        assert ours.shape == x.shape
    else:
        assert_same(ours, norm(x).detach())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(1, 1, 8), (1, 64, 2816), (300, 100)])
@pytest.mark.parametrize("fused", [False, True])
def test_silu_mul(kernels, dtype, size, fused):
    both = (20 * torch.randn(*size[:-1], 2 * size[-1])).to(dtype)
    gate, up = both.chunk(2, dim=-1)
    if not fused:
        gate, up = gate.contiguous(), up.contiguous()
    assert_same(silu_mul(kernels, gate, up), ACT2FN["silu"](gate) * up)


def test_silu_mul_may_overwrite_the_gate(kernels):
    gate, up = torch.randn(2, 50, 72)
    expected = silu_mul(kernels, gate, up)
    assert silu_mul(kernels, gate, up, out=gate) is gate
    assert torch.equal(gate, expected)


def test_silu_mul_of_extreme_gates(kernels):
    gate = torch.tensor([[-1e30, -200.0, -90.0, -0.0, 0.0, 90.0, 1e30, float("nan")]])
    up = torch.full_like(gate, 0.5)
    torch.testing.assert_close(
        silu_mul(kernels, gate, up), ACT2FN["silu"](gate) * up, equal_nan=True
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "tokens", "width"), [(1, 1, 8), (16, 500, 64), (3, 7, 80)])
@pytest.mark.parametrize("transposed", [False, True])
def test_rotate(kernels, dtype, heads, tokens, width, transposed):
    config = LlamaConfig(hidden_size=heads * width, num_attention_heads=heads, head_dim=width)
    x = torch.randn(1, heads, tokens, width).to(dtype)
    if transposed:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    positions = torch.randint(0, 2000, (1, tokens))
    cos, sin = LlamaRotaryEmbedding(config)(x, positions)
    eager, _ = apply_rotary_pos_emb(x, x, cos, sin)
    assert_same(rotate(kernels, x, cos, sin), eager)


def test_numbers_behind_the_rotated_part_are_copied(kernels):
    x = torch.randn(1, 2, 5, 32)
    cos, sin = torch.randn(2, 1, 5, 8)
    whole, part = rotate(kernels, x, cos, sin), rotate(kernels, x[..., :8], cos, sin)
    assert torch.equal(whole[..., :8], part)
    assert torch.equal(whole[..., 8:], x[..., 8:])
