"""What a plan has to know of a model, from its skeleton and its cut form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from tightrun.policies.forms import Recipe, recipe_of
from tightrun.policies.offload_memory import WeightSizes
from tightrun.policies.profile import ModelProfile
from tightrun.policies.shape import ModelShape
from tightrun.runtime.model import CutModel
from tightrun.runtime.projection_trial import find_projection, structure_of
from tightrun.runtime.skeleton import Skeleton

Loaded = Callable[[int], AbstractContextManager[object]]


def profile_of(
    skeleton: Skeleton, shape: ModelShape, recipe: Recipe, dtype: torch.dtype, beside_bytes: int
) -> ModelProfile:
    """The profile of a model whose skeleton is open; nothing is read."""
    layers = range(len(skeleton.layers))
    return ModelProfile(
        name=type(skeleton.model).__name__,
        dtype=str(dtype).removeprefix("torch."),
        shape=shape,
        weights=WeightSizes(
            tuple(skeleton.slab_bytes(layer) for layer in layers), skeleton.outer_bytes
        ),
        disk_layers=tuple(skeleton.slab_bytes(layer, "disk") for layer in layers),
        recipe=recipe,
        beside_bytes=beside_bytes,
    )


def recipe_of_model(
    cut: CutModel, shape: ModelShape, dtype: torch.dtype, device: torch.device, loaded: Loaded
) -> Recipe:
    """What context costs in every form; a projection is tried on one layer of each structure."""
    kinds = kinds_of_layers(cut)
    firsts = sorted({kind: i for i, kind in reversed(list(enumerate(kinds)))}.values())
    projection, _ = find_projection(cut, device, loaded, firsts)
    recipe = recipe_of(shape, projects=False)
    if projection is None:
        return recipe
    flops = {kinds[layer]: projection.flops_per_token(i) for i, layer in enumerate(firsts)}
    return replace(
        recipe,
        activation_bytes=projection.width * dtype.itemsize * len(kinds),
        projection_flops=float(sum(flops[kind] for kind in kinds)),
    )


def kinds_of_layers(cut: CutModel) -> list[int]:
    """A number for each layer, the same for those of one structure."""
    numbers: dict[Sequence[object], int] = {}
    return [numbers.setdefault(structure_of(layer), len(numbers)) for layer in cut.layers]
