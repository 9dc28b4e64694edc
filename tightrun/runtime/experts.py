"""The experts of a mixture, each multiplied with the rows that chose it by a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tightrun.runtime.kernels.cpu import CpuKernels
from tightrun.runtime.kernels.products import linear

ExpertsForward = Callable[[Tensor, Tensor, Tensor], Tensor]


def experts_forward(module: nn.Module, kernels: CpuKernels) -> ExpertsForward | None:
    """What transformers' experts interface computes, for a module that follows it; None for others.

    Weights are `[experts, columns, inner]`. The forward takes rows `[tokens, hidden]`, and the
    numbers and the weights of the experts that each chose, `[tokens, chosen]`.
    """
    owner: Any = module
    down = getattr(module, "down_proj", None)
    if not isinstance(down, nn.Parameter) or down.dim() != 3:
        return None
    gated = getattr(module, "has_gate", None)
    if gated is None or getattr(module, "is_transposed", True):
        return None
    if getattr(module, "has_post_expert_norm", False):
        return None
    first = "gate_up_proj" if gated else "up_proj"
    activate = owner._apply_gate if gated else owner.act_fn

    def multiply(name: str, expert: int, rows: Tensor) -> Tensor:
        # Looked up at every call: a streamed layer's weights stand in another slot each pass.
        bias = getattr(owner, f"{name}_bias")[expert] if owner.has_bias else None
        return linear(kernels, rows, getattr(owner, name)[expert], bias)

    def forward(hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        tokens, chosen = top_k_index.shape
        by_expert = top_k_index.reshape(-1).argsort(stable=True)
        rows = hidden_states[by_expert // chosen]
        counts = top_k_index.reshape(-1).bincount(minlength=len(owner.down_proj)).tolist()
        out = torch.empty_like(rows)
        begin = 0
        for expert, count in enumerate(counts):
            if count:
                mine = slice(begin, begin + count)
                wide = activate(multiply(first, expert, rows[mine]))
                out[mine] = multiply("down_proj", expert, wide)
                begin += count
        weighted = out * top_k_weights.reshape(-1)[by_expert, None]
        in_order = torch.empty_like(weighted)
        in_order[by_expert] = weighted
        summed = in_order.view(tokens, chosen, -1).sum(dim=1)
        return summed.to(hidden_states.dtype)

    return forward
