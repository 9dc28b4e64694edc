"""From options to a model that is ready: loaded, proven, planned for, its kernels chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import psutil
import torch

from tightrun.policies.forms import Form
from tightrun.policies.hardware import Hardware, Rates
from tightrun.policies.kv import Distributor
from tightrun.policies.plan import DoesNotFitError, Plan, Workload, plan_resident
from tightrun.policies.shape import ModelShape
from tightrun.runtime.allocator import keep_freed_memory
from tightrun.runtime.attention import AttentionKernel
from tightrun.runtime.checkpoint import ModelSource, checkpoint_bytes, load_config, load_model
from tightrun.runtime.cpu_attention import CpuAttention
from tightrun.runtime.cpu_device import CpuDevice
from tightrun.runtime.device import Device
from tightrun.runtime.fusing import fuse
from tightrun.runtime.inspection import inspect_model, paged_attention
from tightrun.runtime.kernel_choice import choose_kernel
from tightrun.runtime.limits import choose_device, detect_hardware, hold_to_budget
from tightrun.runtime.model import CutModel
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.pass_plan import WeightTraffic
from tightrun.runtime.prepack import can_prepack, prepack
from tightrun.runtime.projection import Projection
from tightrun.runtime.rates import probe_rates
from tightrun.runtime.rope_sides import RopeSides
from tightrun.runtime.tokenizer import Tokenizer, end_tokens
from tightrun.runtime.weights import ResidentWeights, Weights

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory, known to run exactly when cut, and what was decided for it."""

    cut: CutModel
    shape: ModelShape
    dtype: torch.dtype
    device: torch.device
    rope_sides: RopeSides
    tokenizer: Tokenizer
    ends: frozenset[int]
    hardware: Hardware
    rates: Rates
    plan: Plan
    kernel: AttentionKernel
    accelerator: Device
    options: EngineOptions
    weights: Weights = field(default_factory=ResidentWeights)
    weight_traffic: WeightTraffic = WeightTraffic()
    projection: Projection | None = None
    form: Form = "none"
    notes: tuple[str, ...] = ()

    def distributor(self) -> Distributor:
        """What decides, pass by pass, how much of the context off the device is recomputed."""
        projection, layers = self.projection, len(self.shape.layers)
        return Distributor(
            self.shape,
            self.rates,
            self.form,
            self.plan.block_tokens,
            forced=self.options.recompute if self.form != "none" else None,
            activation_bytes=projection.width * self.dtype.itemsize * layers if projection else 0,
            projection_flops_per_token=(
                float(sum(map(projection.flops_per_token, range(layers)))) if projection else 0.0
            ),
            most_rows=self.plan.most_rows,
        )

    def close(self) -> None:
        """End the device's links and close the checkpoint's files."""
        self.accelerator.close()


def load(options: EngineOptions, notify: Notify) -> LoadedModel:
    """Load and prove the model, probe the device, plan, choose the kernels.

    Raises ModelRefusedError for a model that cannot be run exactly, DoesNotFitError with the sum
    if memory does not suffice, ValueError for a device that is not there.
    """
    device = choose_device(options.device)
    source = ModelSource(options.model, options.revision, options.dtype, options.trust_remote_code)
    config = load_config(source)
    hardware = detect_hardware(device, options.gpu_memory, options.cpu_memory)
    _refuse_too_large(source, hardware)
    if device.type == "cuda":
        hold_to_budget(device, hardware.device_memory)
    else:
        keep_freed_memory()
    tokenizer = _load_tokenizer(options)
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
        _workload(options),
        batch_size=options.batch_size,
        batches=options.batches,
        context=options.context,
        beside=_beside(shape.weight_bytes, device) + _second_head_bytes(inspected.cut, packs),
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
        accelerator=accelerator_of(device, hardware, notify),
        options=options,
    )


def accelerator_of(device: torch.device, hardware: Hardware, notify: Notify) -> Device:
    """The device a model runs on that is wholly resident there."""
    if device.type == "cuda":
        from tightrun.runtime.cuda_device import CudaDevice

        return CudaDevice(device, hardware.device_memory.bytes, hardware.host_memory.bytes)
    return CpuDevice(hardware.device_memory.bytes, notify=notify)


def _load_tokenizer(options: EngineOptions) -> Tokenizer:
    return Tokenizer(
        options.tokenizer or options.model,
        revision=None if options.tokenizer else options.revision,
        trust_remote_code=options.trust_remote_code,
        chat=options.chat,
        system=options.system,
    )


def _workload(options: EngineOptions) -> Workload:
    longest = None
    if options.prompt_bytes is not None:
        # A token stands for a byte at least; templates and special tokens add some.
        longest = options.prompt_bytes + 1024 + options.max_tokens
    return Workload(options.rows, options.sampling_n, longest)


def _beside(weight_bytes: int, device: torch.device) -> int:
    """Bytes of the process that are in no arena: the interpreter and its imports."""
    if device.type == "cuda":
        return 0
    return max(0, psutil.Process().memory_info().rss - weight_bytes)


def _refuse_too_large(source: ModelSource, hardware: Hardware) -> None:
    """Refuse before reading weights that cannot fit."""
    size = checkpoint_bytes(source)
    budget = hardware.device_memory
    if size is not None and size > budget.bytes:
        raise DoesNotFitError(
            f"does not fit: the weights at {source.path} take {size / 2**30:,.1f} GiB, but "
            f"{budget.limit} allows {budget.bytes / 2**30:,.1f} GiB. Weights larger than the "
            "memory cannot be streamed by this version yet; use a smaller model or more memory."
        )


def _prepack(cut: CutModel, plan: Plan) -> None:
    for layer in cut.layers:
        prepack(layer, plan.prefill_tokens)
    head = cut.model.get_output_embeddings()  # type: ignore[operator]
    if type(head) is torch.nn.Linear:
        prepack(head, plan.batch_size, keep_weight=_is_tied(cut))


def _is_tied(cut: CutModel) -> bool:
    """Whether the head's weight is the embedding's, which looks rows up in the plain one."""
    head = cut.model.get_output_embeddings()  # type: ignore[operator]
    embedding = cut.model.get_input_embeddings()  # type: ignore[operator]
    return head is not None and embedding is not None and head.weight is embedding.weight


def _second_head_bytes(cut: CutModel, packs: bool) -> int:
    """Bytes of the packed copy of a tied head."""
    if not packs or not _is_tied(cut):
        return 0
    weight = cut.model.get_output_embeddings().weight  # type: ignore[operator]
    return int(weight.numel() * weight.element_size())
