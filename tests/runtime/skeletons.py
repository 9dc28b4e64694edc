"""Opens and fills skeletons of tiny checkpoints, and rewrites what is stored in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from tests.runtime.slab_moves import bring, slot_of
from tightrun.runtime.checkpoint import ModelSource, load_config
from tightrun.runtime.skeleton import Skeleton, open_skeleton

CPU = torch.device("cpu")
STORED = "model.safetensors"
Tensors = dict[str, torch.Tensor]


def opened(folder: Path, dtype: torch.dtype = torch.float32) -> Skeleton:
    source = ModelSource(str(folder))
    return open_skeleton(source, load_config(source), dtype)


def reference(folder: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    auto: Any = AutoModelForCausalLM
    model: nn.Module = auto.from_pretrained(folder, dtype=dtype)
    return model


def fill(skeleton: Skeleton, tier: str, spill: Path) -> None:
    """Load what surrounds the layers, and every layer into a slot of its own."""
    skeleton.load_outer(CPU)
    fill_layers(skeleton, tier, spill)


def fill_layers(skeleton: Skeleton, tier: str, spill: Path) -> None:
    for layer in range(len(skeleton.layers)):
        place = torch.zeros(skeleton.slab_bytes(layer), dtype=torch.uint8)
        slab = skeleton.slab(layer, place if tier == "host" else spill)
        assert slab.tier == tier
        assert slab.nbytes == skeleton.slab_bytes(layer, slab.tier)
        slot = slot_of(slab.nbytes)
        bring(slab, slot)
        slab.bindings(slot).bind()


def rewritten(
    source: Path, target: Path, change: Callable[[Tensors], Tensors], config: str | None = None
) -> Path:
    """A copy of a checkpoint with other tensors, and another config if one is given."""
    target.mkdir(exist_ok=True)
    text = (source / "config.json").read_text() if config is None else config
    (target / "config.json").write_text(text)
    save_file(change(load_file(source / STORED)), target / STORED, metadata={"format": "pt"})
    return target
