"""Every vector width computes the same: what runs on older processors is tested on newer ones."""

import platform
from pathlib import Path

import pytest
import torch

from tests.runtime.kernels.paged_case import PagedCase, Shape
from tightrun.runtime.kernels.abi import open_library, torch_openmp
from tightrun.runtime.kernels.build import KernelsUnavailableError, build
from tightrun.runtime.kernels.cpu import CpuKernels
from tightrun.runtime.kernels.elementwise import rms_norm, silu_mul
from tightrun.runtime.kernels.products import linear

NEEDS = {"x86-64": "sse2", "haswell": "avx2", "skylake-avx512": "avx512vl"}


@pytest.fixture(scope="module", params=NEEDS)
def target_kernels(request, compiler, tmp_path_factory):
    if platform.machine() != "x86_64":
        pytest.skip("the targets are those of x86-64")
    if NEEDS[request.param] not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"this processor has no {NEEDS[request.param]}")
    flags = ((f"-march={request.param}", "-O1"),)
    path = build(tmp_path_factory.mktemp(request.param), compiler, flags)
    return CpuKernels(open_library(path), torch_openmp())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [(2, 2), (8, 2), (5, 1), (9, 1)])
@pytest.mark.parametrize("head_dim", [8, 64, 72])
def test_attention_on_every_target(target_kernels, dtype, heads, head_dim):
    shape = Shape(q_heads=heads[0], kv_heads=heads[1], head_dim=head_dim, dtype=dtype)
    lengths = [(600, 1), (0, 150), (70, 3), (0, 1)]
    case = PagedCase.make(target_kernels, shape, lengths)
    case.assert_attends(target_kernels)
    case.assert_attends(target_kernels, window=40, softcap=2.0, sinks=torch.ones(heads[0]))


def test_elementwise_on_every_target(target_kernels):
    gate, up = torch.randn(2, 30, 100)
    torch.testing.assert_close(
        silu_mul(target_kernels, gate, up), torch.nn.functional.silu(gate) * up
    )
    expected = torch.nn.functional.rms_norm(gate, (100,), up[0], 1e-5)
    torch.testing.assert_close(rms_norm(target_kernels, gate, up[0], 1e-5), expected)


@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 16, 3), (7, 1100, 49), (40, 900, 50)])
def test_products_on_every_target(target_kernels, rows, inner, columns):
    x, weight = torch.randn(rows, inner).bfloat16(), torch.randn(columns, inner).bfloat16()
    expected = (x.double() @ weight.double().T).bfloat16()
    found = linear(target_kernels, x, weight)
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=1e-3)


def test_a_target_the_compiler_does_not_know_is_an_error(tmp_path, compiler):
    with pytest.raises(KernelsUnavailableError, match="could not compile"):
        build(tmp_path, compiler, (("-march=no-such-processor",),))
