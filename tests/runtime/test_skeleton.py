"""A model filled layer by layer from slabs is bitwise the model of `from_pretrained`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from tests.parity.families import RUN
from tests.parity.tiny_models import save_tiny
from tests.runtime.slab_moves import assert_same, bring, slot_of
from tightrun.runtime.checkpoint import ModelSource, load_config
from tightrun.runtime.skeleton import Skeleton, open_skeleton

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folders: dict[str, Path] = {}

    def save(family: str) -> Path:
        if family not in folders:
            folders[family] = save_tiny(tmp_path_factory.mktemp(family), *RUN[family])
        return folders[family]

    return save


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
    for layer in range(len(skeleton.layers)):
        place = torch.zeros(skeleton.slab_bytes(layer), dtype=torch.uint8)
        slab = skeleton.slab(layer, place if tier == "host" else spill)
        assert slab.tier == tier
        assert slab.nbytes == skeleton.slab_bytes(layer, slab.tier)
        slot = slot_of(slab.nbytes)
        bring(slab, slot)
        slab.bindings(slot).bind()


@pytest.mark.parametrize("tier", ["host", "disk"])
@pytest.mark.parametrize("family", sorted(RUN))
def test_slabs_are_the_weights_of_from_pretrained(
    family: str, tier: str, saved: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = saved(family)
    with opened(folder) as skeleton:
        fill(skeleton, tier, tmp_path)
        assert_same(skeleton.model, reference(folder))
