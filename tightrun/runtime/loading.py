"""From options to a model that is ready: loaded, proven, planned for, its kernels chosen."""

from __future__ import annotations

import psutil
import torch
from transformers import PretrainedConfig

from tightrun.policies.hardware import Hardware
from tightrun.policies.plan import Plan, plan_resident
from tightrun.runtime.allocator import keep_freed_memory
from tightrun.runtime.checkpoint import (
    ModelSource,
    checkpoint_bytes,
    compute_dtype,
    load_config,
    load_model,
)
from tightrun.runtime.cpu_attention import CpuAttention
from tightrun.runtime.fusing import fuse
from tightrun.runtime.inspection import inspect_model, paged_attention
from tightrun.runtime.kernel_choice import choose_kernel
from tightrun.runtime.loaded_model import LoadedModel, Notify, load_tokenizer, workload
from tightrun.runtime.loading_offloaded import Shaken, load_offloaded
from tightrun.runtime.machines import hardware_of, is_emulated, make_device, torch_device_of
from tightrun.runtime.memory import Faults
from tightrun.runtime.model import CutModel
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.prepack import can_prepack, prepack, prepack_head, second_head_bytes
from tightrun.runtime.rates import probe_rates
from tightrun.runtime.tokenizer import end_tokens
from tightrun.runtime.torch_device import hold_to_budget, use_processors

# A model that leaves less than this for its KV cache and workspace is streamed.
LARGEST_SHARE = 0.95


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
        hold_to_budget(device, hardware.device_memory)
    if is_emulated(options) or _is_too_large(source, config, hardware):
        return load_offloaded(options, source, config, hardware, device, notify, shaken or Shaken())
    faults = shaken.faults if shaken else None
    return _load_resident(options, source, config, hardware, device, notify, faults)


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
    plan = plan_resident(
        shape,
        hardware.device_memory,
        str(device),
        workload(options),
        batch_size=options.batch_size,
        batches=options.batches,
        context=options.context,
        beside=_beside(shape.weight_bytes, device)
        + (second_head_bytes(inspected.cut.model) if packs else 0),
    )
    if packs:
        _prepack(inspected.cut, plan)
    kernel = choose_kernel(
        shape, plan.block_tokens, dtype, device, options.kernel_cache, options.compiler, notify
    )
    inspected.cut.answer_attention(paged_attention(kernel))
    if packs and isinstance(kernel, CpuAttention):
        for layer in inspected.cut.layers:
            fuse(layer, kernel.kernels)
    return LoadedModel(
        cut=inspected.cut,
        shape=shape,
        dtype=dtype,
        device=device,
        rope_sides=inspected.rope_sides,
        tokenizer=tokenizer,
        ends=end_tokens(options.model, options.revision, tokenizer, config),
        hardware=hardware,
        rates=probe_rates(shape, dtype, device),
        plan=plan,
        kernel=kernel,
        accelerator=make_device(options, hardware, device, notify, faults=faults),
        options=options,
    )


def _beside(weight_bytes: int, device: torch.device) -> int:
    """Bytes of the process that are in no arena: the interpreter and its imports."""
    if device.type == "cuda":
        return 0
    return max(0, psutil.Process().memory_info().rss - weight_bytes)


def _is_too_large(source: ModelSource, config: PretrainedConfig, hardware: Hardware) -> bool:
    """Whether the weights alone would fill the device, seen before any of them is read."""
    size = checkpoint_bytes(source)
    if size is None:
        return False
    device = torch.device(hardware.device)
    stored = getattr(config.get_text_config(decoder=True), "dtype", None)
    if isinstance(stored, torch.dtype):
        size = size * compute_dtype(source.dtype, config, device).itemsize // stored.itemsize
    beside = 0 if device.type == "cuda" else psutil.Process().memory_info().rss
    return size + beside > LARGEST_SHARE * hardware.device_memory.bytes


def _prepack(cut: CutModel, plan: Plan) -> None:
    for layer in cut.layers:
        prepack(layer, plan.prefill_tokens)
    prepack_head(cut.model, plan.batch_size)
