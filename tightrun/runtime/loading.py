"""From options to a model that is ready: loaded, proven, planned for, its kernels chosen."""

from __future__ import annotations

import torch
from transformers import PretrainedConfig

from tightrun.policies.hardware import Hardware
from tightrun.policies.plan import DoesNotFitError, Plan, Predicted, plan_resident
from tightrun.policies.planner import LARGEST_SHARE, is_streamed, predict
from tightrun.policies.profile import Known
from tightrun.runtime.allocator import give_back_unreachable_memory, keep_freed_memory
from tightrun.runtime.checkpoint import (
    ModelSource,
    checkpoint_bytes,
    compute_dtype,
    load_config,
    load_model,
)
from tightrun.runtime.cold import in_turn
from tightrun.runtime.engine_known import all_there, find_resident, held_beside, told
from tightrun.runtime.fusing import fuse, fuse_head
from tightrun.runtime.inspection import inspect_model, paged_attention
from tightrun.runtime.kernel_choice import choose_kernel, fusing_kernels
from tightrun.runtime.loaded_model import (
    LoadedModel,
    Notify,
    case_of,
    load_tokenizer,
    workload,
)
from tightrun.runtime.loading_offloaded import Shaken, load_offloaded
from tightrun.runtime.machines import hardware_of, is_emulated, make_device, torch_device_of
from tightrun.runtime.memory import Faults
from tightrun.runtime.model import CutModel
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.prepack import can_prepack, prepack, prepack_head, second_head_bytes
from tightrun.runtime.rates import probe_rates
from tightrun.runtime.tokenizer import end_tokens
from tightrun.runtime.torch_device import hold_to_budget, use_processors
from tightrun.runtime.work_probe import TimedModel


def load(options: EngineOptions, notify: Notify, shaken: Shaken | None = None) -> LoadedModel:
    """Load and prove the model, probe the device, plan, choose the kernels.

    `shaken` is what a test changes of the run.
    Raises ModelRefusedError for a model that cannot be run exactly, DoesNotFitError with the sum
    if memory does not suffice, ValueError for a device that is not there.
    """
    device = torch_device_of(options)
    source = ModelSource(options.model, options.revision, options.dtype, options.trust_remote_code)
    config = load_config(source)
    hardware = hardware_of(options, device)
    use_processors(hardware.cores)
    if device.type == "cuda":
        give_back_unreachable_memory()
        hold_to_budget(device, hardware.device_memory, options.planned_share)
    if not is_emulated(options) and not _is_too_large(options, source, config, hardware):
        faults = shaken.faults if shaken else None
        try:
            return _load_resident(options, source, config, hardware, device, notify, faults)
        except DoesNotFitError as error:
            notify(f"the weights leave no room for their KV cache, and are streamed: {error}")
    return load_offloaded(options, source, config, hardware, device, notify, shaken or Shaken())


def _load_resident(
    options: EngineOptions,
    source: ModelSource,
    config: PretrainedConfig,
    hardware: Hardware,
    device: torch.device,
    notify: Notify,
    faults: Faults | None,
) -> LoadedModel:
    if device.type == "cpu":
        keep_freed_memory()
    tokenizer = load_tokenizer(options)
    notify(f"loading {options.model} on {device}")
    inspected = inspect_model(load_model(source, config, device), device)
    for note in inspected.notes:
        notify(note)
    shape, dtype = inspected.shape, inspected.dtype
    packs = can_prepack(device, dtype)
    known = told(options, shape, notify, packed=packs)
    beside = held_beside(options, shape.weight_bytes, device)
    beside += second_head_bytes(inspected.cut.model) if packs else 0
    if known is not None and device.type == "cpu":
        # No less than a plan before the run has reckoned with, so that the run keeps to that.
        beside = max(beside, known.profile.beside_bytes)
    plan = plan_resident(
        shape,
        hardware.device_memory,
        str(device),
        workload(options),
        batch_size=options.batch_size,
        batches=options.batches,
        context=options.context,
        beside=beside,
    )
    if packs:
        _prepack(inspected.cut, plan)
    kernel = choose_kernel(
        shape, plan.block_tokens, dtype, device, options.kernel_cache, options.compiler, notify
    )
    inspected.cut.answer_attention(paged_attention(kernel))
    kernels = fusing_kernels(kernel, dtype)
    if kernels is not None:
        for layer in inspected.cut.layers:
            fuse(layer, kernels)
        fuse_head(inspected.cut.model, kernels)
    accelerator = make_device(options, hardware, device, notify, faults=faults)
    if known is None:
        timed = TimedModel(
            inspected.cut, shape, dtype, device, kernel, plan.block_tokens, all_there, packs,
            elsewhere=in_turn(inspected.cut),
        )  # fmt: skip
        known = find_resident(options, timed, accelerator, beside, notify)
    return LoadedModel(
        cut=inspected.cut,
        shape=shape,
        dtype=dtype,
        device=device,
        rope_sides=inspected.rope_sides,
        tokenizer=tokenizer,
        ends=end_tokens(options.model, options.revision, tokenizer, config),
        hardware=hardware,
        rates=known.rates if known else probe_rates(shape, dtype, device, kernels),
        plan=plan,
        kernel=kernel,
        accelerator=accelerator,
        options=options,
        predicted=_predicted(options, known, hardware, plan),
        known=known,
    )


def _predicted(
    options: EngineOptions, known: Known | None, hardware: Hardware, plan: Plan
) -> Predicted | None:
    if known is None:
        return None
    return predict(plan, case_of(options, known, hardware))


def _is_too_large(
    options: EngineOptions, source: ModelSource, config: PretrainedConfig, hardware: Hardware
) -> bool:
    """Whether the model is to be streamed, decided before any of its weights is read: by what is
    known of it, else by whether they would fill the device."""
    if options.known is not None:
        return is_streamed(case_of(options, options.known, hardware))
    size = checkpoint_bytes(source)
    if size is None:
        return False
    device = torch.device(hardware.device)
    stored = getattr(config.get_text_config(decoder=True), "dtype", None)
    if isinstance(stored, torch.dtype):
        size = size * compute_dtype(source.dtype, config, device).itemsize // stored.itemsize
    return size + held_beside(options, 0, device) > LARGEST_SHARE * hardware.device_memory.bytes


def _prepack(cut: CutModel, plan: Plan) -> None:
    for layer in cut.layers:
        prepack(layer, plan.prefill_tokens)
    prepack_head(cut.model, plan.batch_size)
