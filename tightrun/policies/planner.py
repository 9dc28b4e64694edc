"""One door to a plan: what a run and `tightrun plan` both decide, from the same numbers."""

from __future__ import annotations

from dataclasses import dataclass

from tightrun.policies.hardware import Budget, Hardware, Rates
from tightrun.policies.lengths import lengths_of
from tightrun.policies.offload_plan import SIMULATED, PolicyAsked, plan_offloaded
from tightrun.policies.placement import placement_of
from tightrun.policies.plan import Plan, Predicted, Workload, plan_resident
from tightrun.policies.profile import ModelProfile
from tightrun.policies.schedule import schedule_of
from tightrun.policies.shape import ModelShape
from tightrun.policies.simulate import Policy, simulate

# A model that leaves less than this for its KV cache and workspace is streamed.
LARGEST_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A plan with what it was made from, and what the job will come to by the cost model."""

    plan: Plan
    predicted: Predicted | None
    profile: ModelProfile
    hardware: Hardware
    rates: Rates
    workload: Workload
    asked: PolicyAsked


def plan_job(
    profile: ModelProfile,
    hardware: Hardware,
    rates: Rates,
    workload: Workload,
    asked: PolicyAsked,
    context: int | None = None,
    simulated: int = SIMULATED,
) -> JobPlan:
    """The plan of a job; of the best ways to run it, `simulated` are simulated. With 0 it is any
    plan that fits, without a prediction: a quick answer whether there is one.

    Raises DoesNotFitError with the sum.
    """
    kind = hardware.device.split(":")[0]
    beside = 0 if kind == "cuda" else profile.beside_bytes
    if is_resident(kind, profile.shape, beside, hardware.device_memory):
        plan = plan_resident(
            profile.shape,
            hardware.device_memory,
            hardware.device,
            workload,
            batch_size=asked.batch_size,
            batches=asked.batches,
            context=context,
            beside=beside,
        )
    else:
        plan = plan_offloaded(
            profile.shape,
            profile.weights,
            hardware.device_memory,
            hardware.host_memory,
            rates,
            hardware.device,
            workload,
            asked,
            context,
            host_beside=profile.beside_bytes,
            recipe=profile.recipe,
            simulated=simulated,
        )
    predicted = None
    if simulated:
        predicted = predict(plan, profile, hardware, rates, workload, asked)
    return JobPlan(plan, predicted, profile, hardware, rates, workload, asked)


def is_resident(kind: str, shape: ModelShape, beside: int, memory: Budget) -> bool:
    """Whether all weights stay on a device of that kind; an emulated one always streams."""
    return kind != "emulated" and shape.weight_bytes + beside <= LARGEST_SHARE * memory.bytes


def predict(
    plan: Plan,
    profile: ModelProfile,
    hardware: Hardware,
    rates: Rates,
    workload: Workload,
    asked: PolicyAsked,
) -> Predicted:
    """What the job will come to with the plan, by simulation."""
    recomputes = asked.name == "adaptive"
    policy = Policy(
        schedule=schedule_of(asked.name),
        form=plan.recompute_form if recomputes else "none",
        forced=asked.recompute,
    )
    return simulate(
        profile.shape,
        rates,
        profile.recipe,
        placement_of(plan, profile.weights, hardware.device),
        lengths_of(workload, plan.context),
        policy,
    )
