"""Learns a model without its weights, and how fast this machine is at what the model asks of it."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from tightrun.policies.hardware import Rates
from tightrun.policies.profile import ModelProfile
from tightrun.runtime.allocator import give_back_freed_memory
from tightrun.runtime.checkpoint import ModelSource, compute_dtype, load_config
from tightrun.runtime.device_rates import rates_of_device
from tightrun.runtime.disk_probe import reads_of_disk
from tightrun.runtime.hollow import HollowModel
from tightrun.runtime.loaded_model import Notify
from tightrun.runtime.machines import hardware_of, make_device, torch_device_of
from tightrun.runtime.model import ModelRefusedError
from tightrun.runtime.model_profile import profile_of, recipe_of_model
from tightrun.runtime.options import EngineOptions


class LearningRefusedError(ValueError):
    """The engine would refuse this model or this device; the message says why."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """A profile, and the rates of the device; None if it is described and not here."""

    profile: ModelProfile
    rates: Rates | None


def learn_model(options: EngineOptions, holding: int, notify: Notify) -> Learnt:
    """What can be known before a run. `holding` are bytes that the process of the run holds beside
    what this one does. Takes memory for one layer of the model. Raises LearningRefusedError.
    """
    described = _is_described(options)
    try:
        device = torch.device("cpu") if described else torch_device_of(options)
        source = ModelSource(
            options.model, options.revision, options.dtype, options.trust_remote_code
        )
        config = load_config(source)
        kind = torch.device("cuda") if described else device
        dtype = compute_dtype(options.dtype, config, kind)
        model = HollowModel(source, config, dtype, device)
    except (ModelRefusedError, ValueError) as error:
        raise LearningRefusedError(str(error)) from error
    try:
        notify(f"learning {options.model} without its weights")
        recipe = recipe_of_model(model.cut, model.shape, dtype, device, model.loaded)
        model.let_go()
        beside = _beside_bytes(options, holding)
        profile = profile_of(model.skeleton, model.shape, recipe, dtype, beside)
        rates = None if described else _rates(options, model, dtype, device, notify)
    finally:
        model.close()
    return Learnt(profile, rates)


def _is_described(options: EngineOptions) -> bool:
    """Whether the device is one of a described machine and not of this one."""
    machine = options.machine
    return machine is not None and machine.device == "cuda" and not torch.cuda.is_available()


def _beside_bytes(options: EngineOptions, holding: int) -> int:
    """What a process with this model holds in no arena; nothing where memory is only a number."""
    if options.machine is not None and options.machine.cpu_memory is not None:
        return 0
    give_back_freed_memory()
    return psutil.Process().memory_info().rss + holding


def _rates(
    options: EngineOptions,
    model: HollowModel,
    dtype: torch.dtype,
    device: torch.device,
    notify: Notify,
) -> Rates:
    notify("measuring what this machine can do")
    accelerator = make_device(options, hardware_of(options, device), device, notify)
    spill = options.spill
    assert spill is not None
    try:
        with reads_of_disk(model.skeleton.read_from(), spill, notify) as disk_moves:
            return rates_of_device(
                model.shape, dtype, accelerator, options.machine, disk_moves, packed=False
            )
    finally:
        accelerator.close()
