"""What an engine knows of its model and machine: as it was told, else found out while it loads.

It finds what a process without the weights would (see `learning`), by the same functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tightrun.policies.profile import Known
from tightrun.policies.shape import ModelShape
from tightrun.runtime.checkpoint import ModelSource, load_config
from tightrun.runtime.device import Device
from tightrun.runtime.hollow import RandomLayers
from tightrun.runtime.learning import beside_bytes, measure, random_model
from tightrun.runtime.loaded_model import Notify
from tightrun.runtime.model import CutModel, ModelRefusedError
from tightrun.runtime.model_profile import profile_of, recipe_of_model
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.skeleton import Skeleton, open_skeleton
from tightrun.runtime.work_probe import TimedModel


def told(
    options: EngineOptions, shape: ModelShape, notify: Notify, *, packed: bool
) -> Known | None:
    """What the options know, if it is of this model and of weights that lie as they will here."""
    known = options.known
    if known is None:
        return None
    if known.profile.shape != shape:
        notify("what was known of the model is of another one, and is found out again")
        return None
    if known.rates.work is not None and known.rates.work.packed != packed:
        notify("what was known of the machine is of another way to run, and is measured again")
        return None
    return known


def find_streamed(
    options: EngineOptions,
    skeleton: Skeleton,
    cut: CutModel,
    shape: ModelShape,
    dtype: torch.dtype,
    device: Device,
    notify: Notify,
) -> Known:
    """With random numbers in one layer, before any other memory is taken. What surrounds the
    layers is loaded, and counts as weights."""
    layers = RandomLayers(skeleton, device.torch)
    recipe = recipe_of_model(cut, shape, dtype, device.torch, layers.loaded)
    layers.let_go()
    beside = max(0, beside_bytes(options) - _outer_in_host(skeleton, device))
    timed = random_model(cut, layers, shape, dtype, device, options, _unsaid)
    rates, measured = measure(options, timed, device, skeleton.read_from(), notify)
    layers.let_go()
    return Known(profile_of(skeleton, shape, recipe, dtype, beside), rates, measured)


def _outer_in_host(skeleton: Skeleton, device: Device) -> int:
    return skeleton.outer_bytes if device.torch.type == "cpu" else 0


def held_beside(options: EngineOptions, weight_bytes: int, device: torch.device) -> int:
    """What the process holds on a device that is the CPU beside so many bytes of weights, in no
    arena; nothing on a GPU, or where memory is only a number."""
    return max(0, beside_bytes(options) - weight_bytes) if device.type == "cpu" else 0


def find_resident(
    options: EngineOptions, model: TimedModel, device: Device, beside: int, notify: Notify
) -> Known | None:
    """With the model as it is in memory, ready to run; None for one that has no plan without its
    weights, such as a quantised one."""
    source = ModelSource(options.model, options.revision, options.dtype, options.trust_remote_code)
    try:
        skeleton = open_skeleton(source, load_config(source), model.dtype, weights=False)
    except ModelRefusedError as error:
        notify(f"there is no prediction for this model: {error}")
        return None
    with skeleton:
        recipe = recipe_of_model(model.cut, model.shape, model.dtype, model.device, model.loaded)
        rates, measured = measure(options, model, device, skeleton.read_from(), notify)
        profile = profile_of(skeleton, model.shape, recipe, model.dtype, beside)
        return Known(profile, rates, measured)


@contextmanager
def all_there(_layer: int) -> Iterator[None]:
    """Every layer is in memory."""
    yield


def _unsaid(_text: str) -> None:
    """What a kernel says is said when it is chosen for the run."""
