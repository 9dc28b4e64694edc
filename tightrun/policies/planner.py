"""One door to a plan: what a run and `tightrun plan` both decide, from the same numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tightrun.policies.hardware import Hardware, Rates
from tightrun.policies.lengths import lengths_of
from tightrun.policies.offload_memory import WeightSizes
from tightrun.policies.offload_plan import SIMULATED, PolicyAsked, plan_offloaded
from tightrun.policies.placement import placement_of
from tightrun.policies.plan import DoesNotFitError, Plan, Predicted, Workload, plan_resident
from tightrun.policies.profile import ModelProfile
from tightrun.policies.schedule import schedule_of
from tightrun.policies.simulate import Policy, simulate

# A model that leaves less than this for its KV cache and workspace is streamed.
LARGEST_SHARE = 0.95
# A GPU decodes so many sequences about as fast as one: with room for them, weights stay resident.
CROWD = 128
# What fits stays resident unless streaming is predicted to be so many times as fast.
WORTH_STREAMING = 1.1


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
    plan = plan_whole(profile, hardware, workload, asked, context)
    if plan is None:
        return plan_streamed(profile, hardware, rates, workload, asked, context, simulated)
    whole = _planned(plan, profile, hardware, rates, workload, asked, simulated)
    if not simulated or not _may_be_cramped(plan, hardware, workload):
        return whole
    try:
        streamed = plan_streamed(profile, hardware, rates, workload, asked, context, simulated)
    except DoesNotFitError:
        return whole
    assert whole.predicted is not None
    assert streamed.predicted is not None
    faster = streamed.predicted.output_tokens_per_s / whole.predicted.output_tokens_per_s
    return streamed if faster > WORTH_STREAMING else whole


def plan_whole(
    profile: ModelProfile,
    hardware: Hardware,
    workload: Workload,
    asked: PolicyAsked,
    context: int | None = None,
) -> Plan | None:
    """The plan with all weights and KV on the device; None if they do not fit, or nearly so."""
    if not weights_fit(profile, hardware):
        return None
    beside = 0 if hardware.device.startswith("cuda") else profile.beside_bytes
    try:
        return plan_resident(
            profile.shape,
            hardware.device_memory,
            hardware.device,
            workload,
            batch_size=asked.batch_size,
            batches=asked.batches,
            context=context,
            beside=beside,
        )
    except DoesNotFitError:
        return None  # weights that are streamed may leave the room that is lacking


def is_streamed(
    profile: ModelProfile,
    hardware: Hardware,
    rates: Rates,
    workload: Workload,
    asked: PolicyAsked,
    context: int | None = None,
) -> bool:
    """Whether `plan_job` would have weights or KV off the device, if it finds any plan."""
    plan = plan_whole(profile, hardware, workload, asked, context)
    if plan is None or not _may_be_cramped(plan, hardware, workload):
        return plan is None
    return plan_job(profile, hardware, rates, workload, asked, context).plan.offloads


def _may_be_cramped(plan: Plan, hardware: Hardware, workload: Workload) -> bool:
    """Whether the weights leave a GPU so little room for KV that sending them anew for many more
    sequences may be faster."""
    if not hardware.device.startswith("cuda"):
        return False
    each = workload.typical_sequence or plan.context
    rows = (workload.rows or plan.sequences) * workload.samples
    return plan.kv_tokens < each * min(rows, CROWD)


def weights_fit(profile: ModelProfile, hardware: Hardware) -> bool:
    """Whether the weights leave room for anything else on the device; never on an emulated one,
    which is there to stream."""
    beside = 0 if hardware.device.startswith("cuda") else profile.beside_bytes
    held = profile.shape.weight_bytes + beside
    fits = held <= LARGEST_SHARE * hardware.device_memory.bytes
    return fits and hardware.device != "emulated"


def plan_streamed(
    profile: ModelProfile,
    hardware: Hardware,
    rates: Rates,
    workload: Workload,
    asked: PolicyAsked,
    context: int | None = None,
    simulated: int = SIMULATED,
) -> JobPlan:
    """The plan of a job with weights or KV off the device, as far as need be.

    Raises DoesNotFitError with the sum.
    """

    def planned(profile: ModelProfile) -> Plan:
        return plan_offloaded(
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

    outer, on_disk = profile.weights.outer, profile.disk_layers
    if hardware.device == "cpu":
        profile = replace(profile, weights=WeightSizes(on_disk, outer))
    plan = planned(profile)
    if plan.disk_layers and hardware.device != "cpu":
        # Read straight from their files, layers may take some pages more.
        larger = tuple(map(max, profile.weights.layers, on_disk))
        profile = replace(profile, weights=WeightSizes(larger, outer))
        plan = planned(profile)
    return _planned(plan, profile, hardware, rates, workload, asked, simulated)


def _planned(
    plan: Plan,
    profile: ModelProfile,
    hardware: Hardware,
    rates: Rates,
    workload: Workload,
    asked: PolicyAsked,
    simulated: int,
) -> JobPlan:
    predicted = None
    if simulated:
        predicted = predict(plan, profile, hardware, rates, workload, asked)
    return JobPlan(plan, predicted, profile, hardware, rates, workload, asked)


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
