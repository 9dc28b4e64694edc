"""Work whose weights lie in no cache of the processor, as in a model that is larger than them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import torch

from tightrun.runtime.model import CutModel
from tightrun.runtime.model_profile import kinds_of_layers

CACHES = "sys/devices/system/cpu/cpu0/cache"
USUAL_BYTES = 32 * 2**20
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def cache_bytes(root: Path = Path("/")) -> int:
    """Bytes of the processor's largest cache; a usual number where the system does not tell."""
    found = []
    for file in (root / CACHES).glob("index*/size"):
        text = file.read_text().strip()
        if text[:-1].isdigit() and text[-1:] in UNITS:
            found.append(int(text[:-1]) * UNITS[text[-1]])
    return max(found, default=USUAL_BYTES)


def places(nbytes: int, all_bytes: int, device: torch.device) -> int:
    """How many weights of so many bytes, used in turns, do not find themselves in a cache again.
    One where `all_bytes` of a model stay in it, and on a GPU, whose layers are larger."""
    if device.type != "cpu" or not nbytes or all_bytes <= cache_bytes():
        return 1
    return max(1, -(-2 * cache_bytes() // nbytes))


def in_turn(cut: CutModel) -> Callable[[int], int]:
    """For a layer, another of its kind at every call, of a model whose layers are in memory."""
    kinds = kinds_of_layers(cut)
    alike = {
        kind: cycle([i for i, other in enumerate(kinds) if other == kind]) for kind in {*kinds}
    }
    return lambda layer: next(alike[kinds[layer]])


def sweeper(device: torch.device, weight_bytes: int) -> Callable[[], None] | None:
    """Drives what was used out of the processor's caches; None on a GPU, or where all weights of
    the model stay in them."""
    if device.type != "cpu" or weight_bytes <= cache_bytes():
        return None
    swept = torch.zeros(2 * cache_bytes(), dtype=torch.uint8)

    def sweep() -> None:
        swept.add_(1)

    return sweep
