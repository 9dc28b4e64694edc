"""Models whose rotary table depends on the longest position in the call.

Packing a short sequence beside a long one would silently change its angles. Phi-3's longrope has
two tables and a threshold: sequences are kept apart by side, and a sequence's side is fixed when
it is admitted from its prompt and the most it may write (`generate` would switch in mid-way).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tightrun.core import Request
from tightrun.policies.shape import ModelShape
from tightrun.runtime.batch import Segment, pack
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.model import CutModel, ModelRefusedError
from tightrun.runtime.sequence import Sequence

PROBE_TOKENS = 5


@dataclass(frozen=True, slots=True)
class RopeSides:
    """`threshold` in tokens: a longer sequence takes the second table. None: one table only."""

    threshold: int | None = None

    def side(self, most_tokens: int) -> int:
        """0 or 1. The last token of a sequence is never fed, so its position does not count."""
        return int(self.threshold is not None and most_tokens - 1 > self.threshold)

    def pad_position(self, side: int) -> int | None:
        """A position to add to a batch so that the model chooses the table of that side."""
        return self.threshold if side else None


def find_rope_sides(cut: CutModel, config: Any, device: torch.device) -> RopeSides:
    """Compare the layers' arguments for short positions alone and beside a far one.

    Raises ModelRefusedError where they differ and there is no fixed threshold (dynamic rope).
    """
    if "dynamic" in _rope_types(config):
        raise ModelRefusedError(_dynamic(cut))
    longest = int(getattr(config, "max_position_embeddings", None) or 0)
    if not longest:
        return RopeSides()
    alone = _tables(cut, device, None)
    # No sequence is longer, and learned positions end here: on CUDA one more would be fatal.
    beside = _tables(cut, device, longest - 1)
    _tables(cut, device, None)
    if all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True)):
        return RopeSides()
    threshold = _original_length(config)
    if "longrope" not in _rope_types(config) or threshold is None:
        raise ModelRefusedError(_dynamic(cut))
    return RopeSides(threshold)


def _dynamic(cut: CutModel) -> str:
    return (
        f"{type(cut.model).__name__} cannot be run exactly: its rotary angles depend on "
        "the longest sequence in the batch (dynamic rope)"
    )


def _rope_dicts(config: Any) -> list[dict[str, Any]]:
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    nested = [x for x in found.values() if isinstance(x, dict)]
    return nested or [found]


def _rope_types(config: Any) -> set[str]:
    return {str(x.get("rope_type", x.get("type", "default"))) for x in _rope_dicts(config)}


def _original_length(config: Any) -> int | None:
    for found in _rope_dicts(config):
        if found.get("original_max_position_embeddings"):
            return int(found["original_max_position_embeddings"])
    value = getattr(config, "original_max_position_embeddings", None)
    return int(value) if value else None


def _tables(cut: CutModel, device: torch.device, far: int | None) -> list[torch.Tensor]:
    """Every floating tensor handed to the layers, cut to the first rows."""
    shape = ModelShape((), 0, 0, 0, 0, 0, 0, 0, 0)
    cache = KVCache(shape, 1, 64, 1, 64, torch.float32, device)
    sequence = Sequence(Request(0, "probe", ""), 0, [1] * PROBE_TOKENS, PROBE_TOKENS, 1)
    cache.open(sequence)
    cache.grow(sequence, PROBE_TOKENS)
    batch = pack([Segment(sequence, PROBE_TOKENS)], cache, device, pad_position=far)
    cut.prelude(batch)
    found: list[torch.Tensor] = []

    def collect(value: Any) -> None:
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() >= 2:
            found.append(value[:, :PROBE_TOKENS].clone())
        elif isinstance(value, (tuple, list)):
            for item in value:
                collect(item)
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                collect(value[key])

    for args, kwargs in batch.layer_calls:
        collect(args[1:])
        collect(kwargs)
    return found
