"""Linear layers with their weights laid out once for oneDNN, on a CPU in bfloat16.

Without it every product reorders the weight again. The plain weight is let go.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def has_bf16_products() -> bool:
    """Whether torch multiplies bfloat16 on this processor faster than one number at a time."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def can_prepack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether prepacked products exist and pay here."""
    return device.type == "cpu" and dtype == torch.bfloat16 and has_bf16_products()


class PackedLinear(nn.Linear):
    """An `nn.Linear` whose product runs on the packed weight.

    `weight` keeps dtype and shape for code that asks, but no memory: every element is the same.
    """

    packed: torch.Tensor

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            input, self.packed, self.bias, "none", [], ""
        )
        return out


def prepack(module: nn.Module, rows: int, keep_weight: bool = False) -> int:
    """Prepack every plain `nn.Linear` below `module` for products of about `rows` rows.

    Subclasses with a forward of their own are left alone. Returns how many were packed.
    """
    count = 0
    for child in module.modules():
        if type(child) is not nn.Linear:
            continue
        packed = torch.ops.mkldnn._reorder_linear_weight(child.weight.data, rows)
        if not keep_weight:
            hollow = child.weight.new_zeros(1, 1).expand(child.weight.shape)
            child.weight = nn.Parameter(hollow, requires_grad=False)
        child.__class__ = PackedLinear
        child.packed = packed
        count += 1
    return count


def prepack_head(model: Any, rows: int) -> None:
    """Prepack the head of a Hugging Face model, which may be tied to the embedding."""
    head = model.get_output_embeddings()
    if type(head) is nn.Linear:
        prepack(head, rows, keep_weight=_is_tied(model))


def second_head_bytes(model: Any) -> int:
    """Bytes of the packed copy that a tied head has beside the plain weight."""
    if not _is_tied(model):
        return 0
    weight = model.get_output_embeddings().weight
    return int(weight.numel() * weight.element_size())


def _is_tied(model: Any) -> bool:
    """Whether the head's weight is the embedding's, which looks rows up in the plain one."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and embedding is not None and head.weight is embedding.weight
