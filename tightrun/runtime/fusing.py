"""Norms, gated activations and products of a model's modules by kernels, on a CPU in bfloat16.

What a module computes is tried, not guessed from its name: the fused form takes its place only
where both agree on random rows with the module's own weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tightrun.runtime.experts import experts_forward
from tightrun.runtime.kernels.cpu import CpuKernels
from tightrun.runtime.kernels.elementwise import rms_norm, silu_mul
from tightrun.runtime.kernels.products import linear
from tightrun.runtime.prepack import has_bf16_products

Forward = Callable[..., torch.Tensor]
# A module's fused form, and what both are tried with.
Found = tuple[Forward, tuple[torch.Tensor, ...]]
TRIAL_ROWS = 4
# Two roundings of bfloat16; a norm of another kind is off by far more.
TOLERANCE = 2.0**-6


def fuse(layer: nn.Module, kernels: CpuKernels) -> int:
    """Replace what can be fused below `layer`; returns how many modules were."""
    count = 0
    for module in layer.modules():
        found = _norm(module, kernels) or _gated(module, kernels) or _product(module, kernels)
        if found is not None and _agree(module, *found):
            module.forward = found[0]
            count += 1
    return count


def fuse_head(model: Any, kernels: CpuKernels) -> None:
    """The same for the head of a Hugging Face model."""
    head = model.get_output_embeddings()
    if head is not None:
        fuse(head, kernels)


@contextmanager
def fused(layer: nn.Module, kernels: CpuKernels) -> Iterator[None]:
    """The layer is fused as long as this lasts."""
    before = {module: module.__dict__.get("forward") for module in layer.modules()}
    fuse(layer, kernels)
    try:
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = forward


def _norm(module: nn.Module, kernels: CpuKernels) -> Found | None:
    """The fused form of a module that may be an RMS norm."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if eps is None or weight is None or weight.dim() != 1 or len(list(module.parameters())) != 1:
        return None
    owner: Any = module

    def forward(hidden_states: torch.Tensor) -> torch.Tensor:
        # Looked up at every call: a streamed layer's weight stands in another slot each pass.
        return rms_norm(kernels, hidden_states, owner.weight, eps)

    return forward, (_random(weight.dtype, 1, TRIAL_ROWS, weight.shape[0]),)


def _gated(module: nn.Module, kernels: CpuKernels) -> Found | None:
    """The fused form of a module that may be down(silu(gate(x)) * up(x))."""
    gate, up, down = (getattr(module, n, None) for n in ("gate_proj", "up_proj", "down_proj"))
    if not isinstance(gate, nn.Linear) or up is None or down is None or not _is_silu(module):
        return None

    def forward(x: torch.Tensor) -> torch.Tensor:
        gated = gate(x)
        out: torch.Tensor = down(silu_mul(kernels, gated, up(x), out=gated))
        return out

    return forward, (_random(gate.weight.dtype, 1, TRIAL_ROWS, gate.in_features),)


def _product(module: nn.Module, kernels: CpuKernels) -> Found | None:
    """A plain linear layer or experts by a kernel, where torch's products in bfloat16 are slow."""
    if has_bf16_products():
        return None
    if type(module) is nn.Linear:

        def forward(x: torch.Tensor) -> torch.Tensor:
            return linear(kernels, x, module.weight, module.bias)

        return forward, (_random(module.weight.dtype, 1, TRIAL_ROWS, module.in_features),)
    experts = experts_forward(module, kernels)
    if experts is None:
        return None
    count, hidden, _ = module.get_parameter("down_proj").shape
    dtype = module.get_parameter("down_proj").dtype
    chosen = torch.arange(2 * TRIAL_ROWS).view(TRIAL_ROWS, 2) % count
    weights = _random(dtype, TRIAL_ROWS, 2).abs()
    return experts, (_random(dtype, TRIAL_ROWS, hidden), chosen, weights)


def _is_silu(module: nn.Module) -> bool:
    """Whether its activation is SiLU: small inputs alone would not tell it from others."""
    activation = getattr(module, "act_fn", None)
    if activation is None:
        return False
    x = torch.linspace(-8, 8, 65)
    return bool(torch.allclose(activation(x), functional.silu(x), atol=1e-5))


def _random(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def _agree(module: nn.Module, fused: Forward, inputs: tuple[torch.Tensor, ...]) -> bool:
    try:
        expected, got = module(*inputs), fused(*inputs)
    except (RuntimeError, TypeError, AssertionError):
        return False
    if not isinstance(expected, torch.Tensor) or expected.shape != got.shape:
        return False
    distance = (got.float() - expected.float()).abs().max()
    return bool(distance <= TOLERANCE * expected.float().abs().max())
