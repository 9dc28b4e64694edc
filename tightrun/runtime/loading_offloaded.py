"""From options to a model that is larger than its device: built without weights, planned for, and
its layers brought where the plan wants them: on the device, in host memory, on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import PretrainedConfig

from tightrun.policies.forms import Form, Recipe, choose_form, recipe_of
from tightrun.policies.hardware import Hardware, Rates
from tightrun.policies.plan import Plan
from tightrun.policies.planner import JobPlan, plan_streamed
from tightrun.policies.profile import Known
from tightrun.policies.shape import ModelShape
from tightrun.runtime.allocator import keep_freed_memory
from tightrun.runtime.checkpoint import ModelSource, compute_dtype
from tightrun.runtime.device import Device
from tightrun.runtime.engine_known import find_streamed, told
from tightrun.runtime.fusing import fuse, fuse_head
from tightrun.runtime.inspection import paged_attention
from tightrun.runtime.inspection_streamed import learn_streamed, prove_streamed
from tightrun.runtime.kernel_choice import choose_kernel, fusing_kernels, is_token_major
from tightrun.runtime.kernels.cpu import CpuKernels
from tightrun.runtime.layer_probe import layer_factor
from tightrun.runtime.learning import beside_bytes
from tightrun.runtime.link_rates import links_running
from tightrun.runtime.links import Delay
from tightrun.runtime.loaded_model import (
    LoadedModel,
    Notify,
    case_of,
    load_tokenizer,
)
from tightrun.runtime.machines import make_device
from tightrun.runtime.memory import Faults
from tightrun.runtime.model import CutModel
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.page_memory import zeros_unwritten
from tightrun.runtime.pass_plan import WeightTraffic
from tightrun.runtime.projection import Projection
from tightrun.runtime.projection_trial import find_projection
from tightrun.runtime.rope_sides import RopeSides
from tightrun.runtime.skeleton import Skeleton, open_skeleton
from tightrun.runtime.slab import Slab
from tightrun.runtime.tokenizer import end_tokens
from tightrun.runtime.weights import ResidentWeights, StreamedWeights, Weights


@dataclass(frozen=True, slots=True)
class Shaken:
    """What a test changes of an offloaded run: the plan's sizes, when transfers end, and (of any
    run) when memory runs out."""

    plan: Callable[[Plan], Plan] = lambda plan: plan
    delay: Delay | None = None
    faults: Faults | None = None


def load_offloaded(
    options: EngineOptions,
    source: ModelSource,
    config: PretrainedConfig,
    hardware: Hardware,
    device: torch.device,
    notify: Notify,
    shaken: Shaken,
) -> LoadedModel:
    """Plan for the model from its headers, bring its weights where the plan wants them, prove it.

    Raises ModelRefusedError for a model that cannot be run exactly, DoesNotFitError with the sum.
    """
    tokenizer = load_tokenizer(options)
    dtype = compute_dtype(source.dtype, config, device)
    accelerator = make_device(options, hardware, device, notify, shaken.delay, shaken.faults)
    skeleton = open_skeleton(source, config, dtype)
    try:
        loaded = _Layers(options, accelerator, skeleton, dtype, notify)
        cut, shape, sides, attention = loaded.learn()
        known = told(options, shape, notify, packed=False) or find_streamed(
            options, skeleton, cut, shape, dtype, accelerator, notify
        )
        rates = known.rates
        planned = loaded.plan(known, hardware)
        plan = shaken.plan(planned.plan)
        if device.type == "cpu":
            # No more than a pass takes anyway: what malloc keeps is in no ledger.
            keep_freed_memory(plan.arenas["workspace"])
        weights, traffic = loaded.bring(plan)
        prove_streamed(
            cut, shape, attention, dtype, device, loaded.bound, prompts=1 if plan.disk_layers else 4
        )
        kernel = choose_kernel(
            shape, plan.block_tokens, dtype, device, options.kernel_cache, options.compiler, notify
        )
        kernels = fusing_kernels(kernel, dtype)
        if kernels is not None:
            loaded.fuse(kernels)
            fuse_head(cut.model, kernels)
        form, projection, plan = loaded.choose_form(cut, shape, rates, plan)
        cut.answer_attention(paged_attention(kernel))
        factor = 1.0
        if rates.work is None:
            with loaded.bound(0), links_running(accelerator):
                factor = layer_factor(
                    cut, shape, rates, plan.block_tokens, dtype, accelerator,
                    token_major=is_token_major(kernel),
                )  # fmt: skip
        for note in skeleton.notes:
            notify(note)
        return LoadedModel(
            cut=cut,
            shape=shape,
            dtype=dtype,
            device=device,
            rope_sides=sides,
            tokenizer=tokenizer,
            ends=end_tokens(options.model, options.revision, tokenizer, config),
            hardware=hardware,
            rates=rates,
            plan=plan,
            kernel=kernel,
            accelerator=accelerator,
            options=options,
            weights=weights,
            weight_traffic=traffic,
            projection=projection,
            form=form,
            compute_factor=factor,
            predicted=planned.predicted,
            known=known,
            skeleton=skeleton,
            spilled=loaded.folder,
        )
    except BaseException:
        accelerator.close()
        skeleton.close()
        raise


class _Layers:
    """The layers of a skeleton on their way to where the plan wants them."""

    def __init__(
        self,
        options: EngineOptions,
        device: Device,
        skeleton: Skeleton,
        dtype: torch.dtype,
        notify: Notify,
    ) -> None:
        self._options, self._device, self._skeleton = options, device, skeleton
        self._dtype, self._notify = dtype, notify
        self._weights: Weights = ResidentWeights()
        self.folder = None if options.spill else TemporaryDirectory(prefix="tightrun-slabs-")

    @property
    def spill(self) -> Path:
        """Where layers are written that have to be converted before they can be streamed."""
        return self._options.spill or Path(self.folder.name if self.folder else "")

    def learn(self) -> tuple[CutModel, ModelShape, RopeSides, str]:
        """Load what surrounds the layers, and read the shape off layers of zeros."""
        self._device.memory.take(self._skeleton.outer_bytes, "outer")
        self._skeleton.load_outer(self._device.torch)
        layers = range(len(self._skeleton.layers))
        # Given back before any arena is taken.
        largest = max(self._skeleton.slab_bytes(layer) for layer in layers)
        empty = zeros_unwritten(largest, self._device.torch)
        learnt = learn_streamed(
            self._skeleton.model,
            self._device.torch,
            lambda layer: self._skeleton.layout(layer).bindings(empty).bind(),
        )
        nothing = torch.empty(largest, dtype=torch.uint8, device="meta")
        for layer in layers:
            self._skeleton.layout(layer).bindings(nothing).bind()
        return learnt

    def plan(self, known: Known, hardware: Hardware) -> JobPlan:
        """Raises DoesNotFitError."""
        options = self._options
        # No less than a plan before the run has reckoned with, so that the run keeps to that.
        outer = self._skeleton.outer_bytes if self._device.torch.type == "cpu" else 0
        own = max(0, beside_bytes(options) - outer)
        beside = max(own, known.profile.beside_bytes)
        profile = replace(known.profile, beside_bytes=beside)
        return plan_streamed(case_of(options, replace(known, profile=profile), hardware))

    def bring(self, plan: Plan) -> tuple[Weights, WeightTraffic]:
        """Read resident layers into device memory, others into host memory, or find them on the
        disk; returns the loader of those that are streamed."""
        skeleton, device = self._skeleton, self._device
        count = len(skeleton.layers)
        resident = set(range(count) if plan.resident_layers is None else plan.resident_layers)
        slabs: dict[int, Slab] = {}
        for layer in range(count):
            self._notify(f"loading layer {layer + 1} of {count}")
            size = skeleton.slab_bytes(layer)
            if layer in resident:
                self._settle_layer(layer, device.empty(size, "weights"))
            elif layer in plan.disk_layers:
                slabs[layer] = skeleton.slab(layer, self.spill)
            else:
                slabs[layer] = skeleton.slab(layer, device.empty_host(size, "weights"))
        if not slabs:
            return self._weights, WeightTraffic()
        self._weights = StreamedWeights(
            device,
            slabs,
            count + 1,
            plan.slots,
            poison=self._options.poison,
            staging=plan.staging_slots,
        )
        on_disk = sum(slabs[x].nbytes for x in plan.disk_layers)
        on_link = sum(x.nbytes for x in slabs.values()) if device.kind != "cpu" else 0
        return self._weights, WeightTraffic(on_link, on_disk)

    @contextmanager
    def bound(self, layer: int) -> Iterator[None]:
        """The layer's weights are there as long as this lasts."""
        self._weights.load(layer)
        yield
        self._weights.drop(layer)

    def fuse(self, kernels: CpuKernels) -> None:
        for layer, module in enumerate(self._skeleton.layers):
            with self.bound(layer):
                fuse(module, kernels)

    def choose_form(
        self, cut: CutModel, shape: ModelShape, rates: Rates, plan: Plan
    ) -> tuple[Form, Projection | None, Plan]:
        """In which form context may be recomputed here; says once if in none.

        Raises ValueError where activations are asked for and the model has none.
        """
        options = self._options
        if not plan.workspace_blocks or options.policy in ("static", "sync"):
            if options.recompute:
                why = (
                    "all of the context is on the device"
                    if not plan.workspace_blocks
                    else f"policy {options.policy} recomputes nothing"
                )
                self._notify(f"policy.recompute has no effect: {why}")
            return "none", None, replace(plan, activation_blocks=0)
        projection, reason = None, ""
        if options.recompute_form != "tokens":
            projection, reason = find_projection(cut, self._device.torch, self.bound)
            if projection is None:
                self._notify(reason)
        layers = range(len(shape.layers))
        recipe: Recipe = recipe_of(shape, projects=False)
        if projection is not None:
            recipe = replace(
                recipe,
                activation_bytes=projection.width * self._dtype.itemsize * len(layers),
                projection_flops=float(sum(map(projection.flops_per_token, layers))),
            )
        asked = options.recompute_form
        if asked == "auto" and not plan.activation_blocks:
            asked = "tokens"
        form, why = choose_form(recipe, rates, asked, options.recompute)
        self._notify(why)
        if form != "activations":
            return form, None, replace(plan, activation_blocks=0)
        return form, projection, plan

    def _settle_layer(self, layer: int, place: torch.Tensor) -> None:
        """Read a layer into device memory to stay."""
        if place.device.type == "cpu":
            self._skeleton.slab(layer, place).bindings(place).bind()
            return
        through = torch.empty(place.numel(), dtype=torch.uint8)
        slab = self._skeleton.slab(layer, through)
        place.copy_(through)
        slab.bindings(place).bind()
