"""Fused norms and gated activations take a module's place only where they compute the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.activations import ACT2FN
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tests.parity.families import RUN
from tightrun.runtime import fusing
from tightrun.runtime.fusing import fuse
from tightrun.runtime.kernels.cpu import CpuKernels


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> CpuKernels:
    found = CpuKernels.load(tmp_path_factory.mktemp("kernels"), print)
    if found is None:
        pytest.skip("no C++ compiler on this machine")
    return found


@pytest.fixture(autouse=True)
def _on_a_processor_with_bf16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "has_bf16_products", lambda: True)


class Gated(nn.Module):
    """A gated MLP as most decoders have it."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(32, 64, bias=False, dtype=torch.bfloat16)
        self.up_proj = nn.Linear(32, 64, bias=False, dtype=torch.bfloat16)
        self.down_proj = nn.Linear(64, 32, bias=False, dtype=torch.bfloat16)
        self.act_fn = ACT2FN[activation]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return out


class HalfGated(Gated):
    """Looks the same from outside and halves the gate."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down_proj(self.act_fn(self.gate_proj(x) / 2) * self.up_proj(x))
        return out


def rows() -> torch.Tensor:
    return torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(1)).bfloat16()


def with_weight(norm: nn.Module) -> nn.Module:
    norm = norm.bfloat16()
    weight = norm.weight
    assert isinstance(weight, torch.Tensor)
    nn.init.normal_(weight, 1.0, 0.3)
    return norm


@torch.inference_mode()
def test_a_llama_norm_is_fused_and_gives_the_same(kernels: CpuKernels) -> None:
    norm = with_weight(LlamaRMSNorm(32, eps=1e-5))
    expected = norm(rows())
    assert fuse(norm, kernels) == 1
    assert torch.equal(norm(rows()), expected)


@torch.inference_mode()
def test_a_fused_norm_takes_the_weight_it_has_when_it_is_called(kernels: CpuKernels) -> None:
    norm = with_weight(LlamaRMSNorm(32, eps=1e-5))
    assert fuse(norm, kernels) == 1
    norm._parameters["weight"] = nn.Parameter(2 * torch.ones(32).bfloat16(), requires_grad=False)
    assert torch.equal(norm(rows()), LlamaRMSNorm.forward(norm, rows()))  # type: ignore[arg-type]


@torch.inference_mode()
def test_a_norm_that_adds_one_to_its_weight_is_left_alone(kernels: CpuKernels) -> None:
    assert fuse(with_weight(Gemma2RMSNorm(32)), kernels) == 0


@torch.inference_mode()
def test_a_layer_norm_is_left_alone(kernels: CpuKernels) -> None:
    assert fuse(with_weight(nn.LayerNorm(32, bias=False)), kernels) == 0


@torch.inference_mode()
def test_a_silu_mlp_is_fused_and_gives_the_same(kernels: CpuKernels) -> None:
    mlp = Gated("silu")
    expected = mlp(rows())
    assert fuse(mlp, kernels) == 1
    assert torch.equal(mlp(rows()), expected)


@torch.inference_mode()
@pytest.mark.parametrize("mlp", [Gated("gelu"), Gated("relu"), HalfGated("silu")])
def test_another_mlp_is_left_alone(kernels: CpuKernels, mlp: nn.Module) -> None:
    assert fuse(mlp, kernels) == 0


class Doubled(nn.Linear):
    """A linear layer with a forward of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@torch.inference_mode()
def test_a_linear_layer_is_fused_where_torch_is_slow(
    kernels: CpuKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusing, "has_bf16_products", lambda: False)
    layer = nn.Linear(32, 48, dtype=torch.bfloat16)
    expected = layer(rows())
    assert fuse(layer, kernels) == 1
    torch.testing.assert_close(layer(rows()), expected)
    layer.weight = nn.Parameter(torch.zeros_like(layer.weight), requires_grad=False)
    assert layer.bias is not None
    assert torch.equal(layer(rows()), layer.bias.expand(1, 9, 48))


@torch.inference_mode()
def test_a_layer_of_another_forward_is_left_alone(
    kernels: CpuKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusing, "has_bf16_products", lambda: False)
    assert fuse(Doubled(32, 48, dtype=torch.bfloat16), kernels) == 0


@torch.inference_mode()
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "olmoe"])
def test_experts_are_fused_where_torch_is_slow(
    kernels: CpuKernels, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setattr(fusing, "has_bf16_products", lambda: False)
    model_type, sizes = RUN[family]
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(model_type, **sizes), dtype=torch.bfloat16
    )
    [experts] = [m for name, m in model.named_modules() if name.endswith("layers.0.mlp.experts")]
    count, hidden, _ = experts.down_proj.shape
    x = torch.randn(37, hidden, generator=torch.Generator().manual_seed(2)).bfloat16()
    scores, chosen = torch.rand(37, count).topk(2)
    chosen[:, 0].clamp_(max=1)  # some experts get no row at all
    expected = experts(x, chosen, scores.bfloat16())
    assert fuse(experts, kernels) == 1
    got = experts(x, chosen, scores.bfloat16())
    torch.testing.assert_close(got, expected, atol=2e-2 * float(expected.abs().max()), rtol=0)


@torch.inference_mode()
def test_transposed_experts_are_left_alone(
    kernels: CpuKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusing, "has_bf16_products", lambda: False)
    model_type, sizes = RUN["gpt_oss"]
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(model_type, **sizes), dtype=torch.bfloat16
    )
    [experts] = [m for name, m in model.named_modules() if name.endswith("layers.0.mlp.experts")]
    assert fuse(experts, kernels) == 0
