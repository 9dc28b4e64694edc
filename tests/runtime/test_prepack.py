"""Packed linear layers compute what the plain ones do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tightrun.runtime.prepack import PackedLinear, can_prepack, prepack

needs_bf16 = pytest.mark.skipif(
    not can_prepack(torch.device("cpu"), torch.bfloat16), reason="no bfloat16 products in oneDNN"
)


def test_float32_and_other_devices_are_left_plain() -> None:
    assert not can_prepack(torch.device("cpu"), torch.float32)
    assert not can_prepack(torch.device("meta"), torch.bfloat16)


@needs_bf16
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_products_are_the_same(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 96, bias=bias), nn.Linear(96, 32, bias=bias))
    model.bfloat16().requires_grad_(False)
    x = torch.randn(1, rows, 48, dtype=torch.bfloat16)
    expected = model(x)
    assert prepack(model, 64) == 2
    assert isinstance(model[0], PackedLinear)
    torch.testing.assert_close(model(x), expected, rtol=2e-2, atol=2e-2)


@needs_bf16
def test_the_plain_weight_is_let_go_but_keeps_its_shape() -> None:
    layer = nn.Linear(48, 96, bias=False).bfloat16().requires_grad_(False)
    prepack(layer, 8)
    assert (layer.weight.shape, layer.weight.dtype) == ((96, 48), torch.bfloat16)
    assert layer.weight.untyped_storage().nbytes() == 2


@needs_bf16
def test_a_weight_that_somebody_else_reads_is_kept() -> None:
    layer = nn.Linear(48, 96, bias=False).bfloat16().requires_grad_(False)
    before = layer.weight.clone()
    prepack(layer, 8, keep_weight=True)
    assert torch.equal(layer.weight, before)


@needs_bf16
def test_layers_with_a_forward_of_their_own_are_left_alone() -> None:
    class Own(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * 2

    assert prepack(nn.Sequential(Own(8, 8)).bfloat16(), 8) == 0
