"""Learns a model without its weights, and how fast this machine is at what the model asks of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch

from tightrun.policies.hardware import Hardware, Rates
from tightrun.policies.plan import BLOCK_TOKENS
from tightrun.policies.planner import weights_fit
from tightrun.policies.profile import Measured, ModelProfile
from tightrun.policies.shape import ModelShape
from tightrun.runtime.allocator import give_back_freed_memory
from tightrun.runtime.checkpoint import ModelSource, compute_dtype, load_config
from tightrun.runtime.context_probe import layer_seconds_of_contexts
from tightrun.runtime.device import Device
from tightrun.runtime.device_rates import rates_of_model
from tightrun.runtime.disk_probe import reads_of_disk
from tightrun.runtime.disturbance import Disturbance
from tightrun.runtime.fusing import fuse_head
from tightrun.runtime.hollow import HollowModel, RandomLayers, as_in_work
from tightrun.runtime.kernel_choice import choose_kernel, fusing_kernels
from tightrun.runtime.loaded_model import Notify
from tightrun.runtime.machines import hardware_of, make_device, torch_device_of
from tightrun.runtime.model import CutModel, ModelRefusedError
from tightrun.runtime.model_profile import profile_of, recipe_of_model
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.prepack import can_prepack, prepack_head, second_head_bytes
from tightrun.runtime.torch_device import use_processors
from tightrun.runtime.work_probe import LOGIT_ROWS, TimedModel, itself


class LearningRefusedError(ValueError):
    """The engine would refuse this model or this device; the message says why."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """A profile, and the rates of the device with how they were measured; None if they are given,
    as those of a device that is described and not here."""

    profile: ModelProfile
    rates: Rates | None = None
    measured: Measured | None = None


def learn_model(
    options: EngineOptions, holding: int, notify: Notify, *, given: bool = False
) -> Learnt:
    """What can be known before a run. `holding` are bytes that the process of the run holds beside
    what this one does; of a machine whose rates are `given`, nothing is measured. Takes memory for
    one layer of the model, and then for its head.

    Raises LearningRefusedError.
    """
    described = given or _is_described(options)
    try:
        device = torch.device("cpu") if described else torch_device_of(options)
        hardware = None if described else hardware_of(options, device)
        source = ModelSource(
            options.model, options.revision, options.dtype, options.trust_remote_code
        )
        config = load_config(source)
        kind = torch.device("cuda") if described and options.device.startswith("cuda") else device
        dtype = compute_dtype(options.dtype, config, kind)
        model = HollowModel(source, config, dtype, device)
    except (ModelRefusedError, ValueError) as error:
        raise LearningRefusedError(str(error)) from error
    try:
        notify(f"learning {options.model} without its weights")
        beside = beside_bytes(options)
        beside += holding if beside else 0
        recipe = recipe_of_model(model.cut, model.shape, dtype, device, model.layers.loaded)
        profile = profile_of(model.skeleton, model.shape, recipe, dtype, beside)
        if hardware is None:
            return Learnt(profile)
        # A CPU that holds all weights lays them out beforehand.
        packed = can_prepack(device, dtype) and weights_fit(profile, hardware)
        if packed:
            beside += second_head_bytes(model.cut.model)
            profile = replace(profile, beside_bytes=beside)
        notify("measuring what this machine can do")
        use_processors(hardware.cores)
        return Learnt(profile, *_rates(options, hardware, model, dtype, packed, notify))
    finally:
        model.close()


def beside_bytes(options: EngineOptions) -> int:
    """What this process holds in no arena, as long as it has no weights; nothing where memory is
    only a number."""
    if options.machine is not None and options.machine.cpu_memory is not None:
        return 0
    give_back_freed_memory()
    return psutil.Process().memory_info().rss


def measure(
    options: EngineOptions,
    model: TimedModel,
    accelerator: Device,
    stored: Sequence[Path],
    notify: Notify,
) -> tuple[Rates, Measured]:
    """The rates of the device for the model, and how they were measured; `stored` are the files its
    layers are read from."""
    at, began_s, others = datetime.now(UTC), time.perf_counter(), Disturbance()
    with TemporaryDirectory(prefix="tightrun-") as elsewhere:
        folder = options.spill or Path(elsewhere)
        with reads_of_disk(stored, folder, notify) as disk_moves:
            rates = rates_of_model(model, accelerator, options.machine, disk_moves)
    if rates.work is not None:
        context_s = layer_seconds_of_contexts(options, accelerator, model.dtype, notify)
        rates = replace(rates, work=replace(rates.work, context_s=context_s))
    seconds = time.perf_counter() - began_s
    return rates, Measured(at.isoformat(timespec="seconds"), seconds, others.share())


def random_model(
    cut: CutModel,
    layers: RandomLayers,
    shape: ModelShape,
    dtype: torch.dtype,
    device: Device,
    options: EngineOptions,
    notify: Notify,
    *,
    packed: bool = False,
    surround: Callable[[], None] | None = None,
) -> TimedModel:
    """The model to be timed with random layers; `surround` brings what surrounds them."""
    block_tokens = BLOCK_TOKENS[device.kind]
    kernel = choose_kernel(
        shape, block_tokens, dtype, device.torch, options.kernel_cache, options.compiler, notify
    )
    loaded = partial(as_in_work, layers, cut, kernel, dtype, packed)
    kernels = fusing_kernels(kernel, dtype)

    def around() -> None:
        if surround is not None:
            surround()
        if kernels is not None:
            fuse_head(cut.model, kernels)

    # Weights that are laid out are so in one place.
    elsewhere = itself if packed else layers.elsewhere
    return TimedModel(
        cut, shape, dtype, device.torch, kernel, block_tokens, loaded, packed, around, elsewhere
    )


def _is_described(options: EngineOptions) -> bool:
    """Whether the device is one of a described machine and not of this one."""
    machine = options.machine
    return machine is not None and machine.device == "cuda" and not torch.cuda.is_available()


def _rates(
    options: EngineOptions,
    hardware: Hardware,
    model: HollowModel,
    dtype: torch.dtype,
    packed: bool,
    notify: Notify,
) -> tuple[Rates, Measured]:
    device = torch_device_of(options)
    accelerator = make_device(options, hardware, device, notify)

    def surround() -> None:
        model.layers.let_go()
        model.fill_products()
        if packed:
            prepack_head(model.cut.model, LOGIT_ROWS[-1])

    try:
        timed = random_model(
            model.cut, model.layers, model.shape, dtype, accelerator, options, notify,
            packed=packed, surround=surround,
        )  # fmt: skip
        return measure(options, timed, accelerator, model.skeleton.read_from(), notify)
    finally:
        accelerator.close()
