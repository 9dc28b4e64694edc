"""A model that is ready to run, and what was decided for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from tempfile import TemporaryDirectory

import torch

from tightrun.policies.case import Case, PolicyAsked
from tightrun.policies.foresight import Foresight
from tightrun.policies.forms import Form, Recipe, recipe_of
from tightrun.policies.hardware import Hardware, Rates
from tightrun.policies.kv import Distributor
from tightrun.policies.lengths import lengths_of
from tightrun.policies.offload_memory import WeightSizes
from tightrun.policies.pass_cost import Policy
from tightrun.policies.placement import placement_of
from tightrun.policies.plan import Plan, Predicted, Workload
from tightrun.policies.planner import JobPlan
from tightrun.policies.profile import Known
from tightrun.policies.schedule import schedule_of
from tightrun.policies.shape import ModelShape
from tightrun.policies.workload import workload_of
from tightrun.runtime.attention import AttentionKernel
from tightrun.runtime.device import Device
from tightrun.runtime.model import CutModel
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.pass_plan import WeightTraffic
from tightrun.runtime.projection import Projection
from tightrun.runtime.rope_sides import RopeSides
from tightrun.runtime.skeleton import Skeleton
from tightrun.runtime.slab import Tier
from tightrun.runtime.tokenizer import Tokenizer
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
    weight_traffic: WeightTraffic = field(default_factory=WeightTraffic)
    projection: Projection | None = None
    form: Form = "none"
    compute_factor: float = 1.0
    predicted: Predicted | None = None
    known: Known | None = None
    skeleton: Skeleton | None = None
    spilled: TemporaryDirectory[str] | None = None

    @property
    def forced(self) -> float | None:
        """The recompute ratio that is asked for, where there is a form for it."""
        return self.options.recompute if self.form != "none" else None

    def recipe(self) -> Recipe:
        """What a token of context costs in every form."""
        recipe, projection = recipe_of(self.shape, projects=False), self.projection
        if projection is None:
            return recipe
        layers = range(len(self.shape.layers))
        return replace(
            recipe,
            activation_bytes=projection.width * self.dtype.itemsize * len(layers),
            projection_flops=float(sum(map(projection.flops_per_token, layers))),
        )

    def distributor(self) -> Distributor:
        """What decides, pass by pass, how much of the context off the device is recomputed."""
        recipe = self.recipe()
        return Distributor(
            self.shape,
            self.rates,
            self.form,
            self.plan.block_tokens,
            forced=self.forced,
            activation_bytes=recipe.activation_bytes,
            projection_flops_per_token=recipe.projection_flops,
            most_rows=self.plan.most_rows,
            compute_factor=self.compute_factor,
        )

    def foresight(self) -> Foresight:
        """The job as planned, to be simulated with what it turns out to be."""
        tier: Tier = "disk" if self.accelerator.kind == "cpu" else "host"
        sizes = tuple(x.weight_bytes for x in self.shape.layers)
        if self.skeleton is not None:
            skeleton = self.skeleton
            sizes = tuple(skeleton.slab_bytes(i, tier) for i in range(len(sizes)))
        return Foresight(
            self.shape,
            self.recipe(),
            placement_of(self.plan, WeightSizes(sizes, 0), self.accelerator.kind),
            Policy(schedule_of(self.options.policy), self.form, self.forced),
            lengths_of(workload(self.options), self.plan.context),
            self.rates,
        )

    def job_plan(self) -> JobPlan | None:
        """What was decided, with what it was made from; None for a model that has no profile."""
        if self.known is None:
            return None
        known = replace(self.known, rates=self.rates)
        return JobPlan(self.plan, self.predicted, case_of(self.options, known, self.hardware))

    def describe(self) -> list[str]:
        """A few lines for people: what runs, on what, with which sizes and bytes."""
        shape, plan = self.shape, self.plan
        arenas = ", ".join(f"{k} {_size(v)}" for k, v in plan.arenas.items() if v)
        return [
            f"{type(self.cut.model).__name__}, {shape.parameters / 1e6:,.1f} M "
            f"parameters in {str(self.dtype).removeprefix('torch.')} on {self.device}, "
            f"{self.kernel.name} attention",
            f"up to {plan.batch_size:,} sequences together, {plan.prefill_tokens:,} prefill tokens "
            f"a pass, contexts to {plan.context:,} tokens",
            f"memory planned: {arenas}; {'; '.join(plan.reasons)}",
        ]

    def close(self) -> None:
        """End the device's links and close the checkpoint's files."""
        self.accelerator.close()
        if self.skeleton is not None:
            self.skeleton.close()
        if self.spilled is not None:
            self.spilled.cleanup()


def load_tokenizer(options: EngineOptions) -> Tokenizer:
    return Tokenizer(
        options.tokenizer or options.model,
        revision=None if options.tokenizer else options.revision,
        trust_remote_code=options.trust_remote_code,
        chat=options.chat,
        system=options.system,
    )


def case_of(options: EngineOptions, known: Known, hardware: Hardware) -> Case:
    """What a plan for the job is made from."""
    asked = PolicyAsked(
        options.batch_size,
        options.batches,
        options.recompute,
        options.recompute_form,
        options.policy,
        disk=options.disk != 0,
    )
    return Case(known.profile, hardware, known.rates, workload(options), asked, options.context)


def workload(options: EngineOptions) -> Workload:
    return workload_of(
        rows=options.rows,
        samples=options.sampling_n,
        max_tokens=options.max_tokens,
        prompt_bytes=options.prompt_bytes,
        prompts=options.prompts,
        expected_output=options.expected_output,
        outputs=options.outputs,
    )


def _size(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.0f} MiB" if nbytes >= 2**23 else f"{nbytes / 2**10:,.0f} KiB"
