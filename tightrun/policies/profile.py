"""A model as the plan needs it: read once, from headers alone, and kept for later plans."""

from __future__ import annotations

from dataclasses import dataclass

from tightrun.policies.forms import Recipe
from tightrun.policies.hardware import Rates
from tightrun.policies.offload_memory import WeightSizes
from tightrun.policies.shape import ModelShape

# Share of all processors; what the system and its services take anyway is less.
MOST_OTHERS = 0.05


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """What a plan knows of a model without its weights.

    `name` is the model's class, `dtype` what is computed in, such as `bfloat16`. `weights` are the
    sizes as they lie in host memory, `disk_layers` bytes of each layer read straight from the
    checkpoint. `recipe` is what a token of context costs in every form, and says whether it can be
    held as activations. `beside_bytes` is what the process holds in no arena.
    """

    name: str
    dtype: str
    shape: ModelShape
    weights: WeightSizes
    disk_layers: tuple[int, ...]
    recipe: Recipe
    beside_bytes: int


@dataclass(frozen=True, slots=True)
class Measured:
    """How rates were measured: when (ISO 8601, UTC), in how many seconds, and what share of all
    processors other processes took meanwhile. `tries` counts the measurements of which this is the
    least disturbed."""

    at: str
    seconds: float
    others_share: float
    tries: int = 1

    @property
    def disturbed(self) -> bool:
        """Whether others took so much that the rates may be those of a machine at other work."""
        return self.others_share > MOST_OTHERS


@dataclass(frozen=True, slots=True)
class Known:
    """What was found out about a model on this machine: no later run has to ask again. `measured`
    is None for rates that are given."""

    profile: ModelProfile
    rates: Rates
    measured: Measured | None = None
