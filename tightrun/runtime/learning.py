"""Learns a model without its weights, and how fast this machine is at what the model asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import psutil
import torch

from tightrun.policies.hardware import Rates
from tightrun.policies.plan import BLOCK_TOKENS
from tightrun.policies.planner import is_resident
from tightrun.policies.profile import ModelProfile
from tightrun.runtime.allocator import give_back_freed_memory
from tightrun.runtime.checkpoint import ModelSource, compute_dtype, load_config
from tightrun.runtime.device_rates import rates_of_model
from tightrun.runtime.disk_probe import reads_of_disk
from tightrun.runtime.hollow import HollowModel, as_in_work
from tightrun.runtime.kernel_choice import choose_kernel
from tightrun.runtime.loaded_model import Notify
from tightrun.runtime.machines import hardware_of, is_emulated, make_device, torch_device_of
from tightrun.runtime.model import ModelRefusedError
from tightrun.runtime.model_profile import profile_of, recipe_of_model
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.prepack import can_prepack, prepack_head, second_head_bytes
from tightrun.runtime.work_probe import LOGIT_ROWS, TimedModel


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
        recipe = recipe_of_model(model.cut, model.shape, dtype, device, model.layers.loaded)
        model.layers.let_go()
        beside = _beside_bytes(options, holding)
        packed = not described and _will_pack(options, model, dtype, device, beside)
        if packed:
            beside += second_head_bytes(model.cut.model)
        profile = profile_of(model.skeleton, model.shape, recipe, dtype, beside)
        rates = None if described else _rates(options, model, dtype, device, packed, notify)
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


def _will_pack(
    options: EngineOptions,
    model: HollowModel,
    dtype: torch.dtype,
    device: torch.device,
    beside: int,
) -> bool:
    """Whether the engine will lay the weights out beforehand: on a CPU that holds all of them."""
    if is_emulated(options) or not can_prepack(device, dtype):
        return False
    return is_resident("cpu", model.shape, beside, hardware_of(options, device).device_memory)


def _rates(
    options: EngineOptions,
    model: HollowModel,
    dtype: torch.dtype,
    device: torch.device,
    packed: bool,
    notify: Notify,
) -> Rates:
    notify("measuring what this machine can do")
    accelerator = make_device(options, hardware_of(options, device), device, notify)
    assert options.spill is not None
    try:
        with reads_of_disk(model.skeleton.read_from(), options.spill, notify) as disk_moves:
            timed = _timed(options, model, accelerator.kind, dtype, device, packed, notify)
            return rates_of_model(timed, accelerator, options.machine, disk_moves)
    finally:
        accelerator.close()


def _timed(
    options: EngineOptions,
    model: HollowModel,
    kind: str,
    dtype: torch.dtype,
    device: torch.device,
    packed: bool,
    notify: Notify,
) -> TimedModel:
    block_tokens = BLOCK_TOKENS[kind]
    kernel = choose_kernel(
        model.shape, block_tokens, dtype, device, options.kernel_cache, options.compiler, notify
    )
    model.fill_products()
    if packed:
        prepack_head(model.cut.model, LOGIT_ROWS[-1])
    return TimedModel(
        model.cut, model.shape, dtype, device, kernel, block_tokens,
        partial(as_in_work, model.layers, model.cut, kernel, dtype, packed), packed,
    )  # fmt: skip
