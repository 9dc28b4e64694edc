"""Products of bfloat16 rows and weights against float32 ones, at every kind of size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tightrun.runtime.kernels.cpu import CpuKernels
from tightrun.runtime.kernels.products import linear

SIZES = [
    (1, 16, 3),
    (3, 7, 5),
    (4, 1024, 48),
    (5, 1025, 49),
    (9, 1000, 100),
    (64, 2050, 31),
    (259, 96, 130),
    (513, 40, 1),
]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def check(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, got: torch.Tensor
) -> None:
    exact = torch.nn.functional.linear(
        x.double(), weight.double(), None if bias is None else bias.double()
    )
    # One rounding to 8 bits, and what float32 sums of so many numbers are off by.
    slack = 2.0**-8 * exact.abs() + 1e-6 * x.shape[-1]
    assert got.shape == exact.shape
    assert got.dtype == torch.bfloat16
    assert bool(((got.double() - exact).abs() <= slack).all())


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("rows", "inner", "columns"), SIZES)
def test_a_product_is_rounded_once(
    kernels: CpuKernels, rows: int, inner: int, columns: int, with_bias: bool
) -> None:
    x, weight = drawn(rows, inner), drawn(columns, inner, seed=1)
    bias = drawn(columns, seed=2) if with_bias else None
    check(x, weight, bias, linear(kernels, x, weight, bias))


@given(rows=st.integers(1, 20), inner=st.integers(1, 70), columns=st.integers(1, 70))
def test_any_size_is_right(kernels: CpuKernels, rows: int, inner: int, columns: int) -> None:
    x, weight = drawn(rows, inner), drawn(columns, inner, seed=1)
    check(x, weight, None, linear(kernels, x, weight))


def test_strides_are_followed(kernels: CpuKernels) -> None:
    x = drawn(2, 10, 3, 80)[:, :, 1, 8:72]
    weight = drawn(50, 100, seed=1)[:, 20:84]
    check(x, weight, None, linear(kernels, x, weight))
    check(x[:, ::2], weight, None, linear(kernels, x[:, ::2], weight))
    check(x, drawn(64, 50).T, None, linear(kernels, x, drawn(64, 50).T))


def test_a_row_is_the_same_in_any_company_and_with_any_threads(kernels: CpuKernels) -> None:
    x, weight = drawn(70, 1100), drawn(200, 1100, seed=1)
    together = linear(kernels, x, weight)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(linear(kernels, x, weight), together)
    finally:
        torch.set_num_threads(threads)
    for row in (0, 3, 33, 69):
        assert torch.equal(linear(kernels, x[row : row + 1], weight)[0], together[row])


def test_what_is_not_a_number_stays_in_its_row(kernels: CpuKernels) -> None:
    x, weight = drawn(6, 40), drawn(10, 40, seed=1)
    expected = linear(kernels, x, weight)
    x[2, 39], x[4, 0] = float("nan"), float("inf")
    got = linear(kernels, x, weight)
    assert bool(got[2].isnan().all())
    assert bool(got[4].isinf().all())
    rest = [0, 1, 3, 5]
    assert torch.equal(got[rest], expected[rest])


def test_no_rows_give_no_rows(kernels: CpuKernels) -> None:
    assert linear(kernels, drawn(0, 8), drawn(5, 8)).shape == (0, 5)
