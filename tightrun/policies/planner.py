"""One door to a plan: what a run and `tightrun plan` both decide, from the same numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tightrun.policies.case import Case
from tightrun.policies.hardware import Hardware
from tightrun.policies.lengths import lengths_of
from tightrun.policies.offload_memory import WeightSizes
from tightrun.policies.offload_plan import SIMULATED, plan_offloaded
from tightrun.policies.placement import placement_of
from tightrun.policies.plan import DoesNotFitError, Plan, Predicted, plan_resident
from tightrun.policies.profile import ModelProfile
from tightrun.policies.schedule import schedule_of
from tightrun.policies.simulate import Policy, simulate

# A model that leaves less than this for its KV cache and workspace is streamed.
LARGEST_SHARE = 0.95
# A GPU decodes so many sequences about as fast as one: with room for them, weights stay resident.
CROWD = 128
# What fits stays resident unless streaming is predicted to be so many times as fast.
WORTH_STREAMING = 1.1
# Layers that are larger by less take the same plan.
_NO_MATTER = 0.001


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A plan, the case that it was made for, and what the job will come to by the cost model."""

    plan: Plan
    predicted: Predicted | None
    case: Case


def plan_job(case: Case, simulated: int = SIMULATED) -> JobPlan:
    """The plan of a job; of the best ways to run it, `simulated` are simulated. With 0 it is any
    plan that fits, without a prediction: a quick answer whether there is one.

    Raises DoesNotFitError with the sum.
    """
    sized = plan_sizes(case, simulated)
    return predicted(sized) if simulated else sized


def plan_sizes(case: Case, simulated: int = SIMULATED) -> JobPlan:
    """The same plan, as a rule without what the job comes to: its speed is that of mean passes."""
    plan = plan_whole(case)
    if plan is None:
        return _streamed(case, simulated)
    whole = JobPlan(plan, None, case)
    if not simulated or not _may_be_cramped(plan, case):
        return whole
    try:
        streamed = predicted(_streamed(case, simulated))
    except DoesNotFitError:
        return whole
    whole = predicted(whole)
    assert whole.predicted is not None
    assert streamed.predicted is not None
    faster = streamed.predicted.output_tokens_per_s / whole.predicted.output_tokens_per_s
    return streamed if faster > WORTH_STREAMING else whole


def plan_whole(case: Case) -> Plan | None:
    """The plan with all weights and KV on the device; None if they do not fit, or nearly so."""
    profile, hardware, asked = case.profile, case.hardware, case.asked
    if not weights_fit(profile, hardware):
        return None
    try:
        return plan_resident(
            profile.shape,
            hardware.device_memory,
            hardware.device,
            case.workload,
            batch_size=asked.batch_size,
            batches=asked.batches,
            context=case.context,
            beside=_beside(profile, hardware),
        )
    except DoesNotFitError:
        return None  # weights that are streamed may leave the room that is lacking


def is_streamed(case: Case) -> bool:
    """Whether `plan_job` would have weights or KV off the device, if it finds any plan."""
    plan = plan_whole(case)
    if plan is None or not _may_be_cramped(plan, case):
        return plan is None
    return plan_sizes(case).plan.offloads


def _may_be_cramped(plan: Plan, case: Case) -> bool:
    """Whether the weights leave a GPU so little room for KV that sending them anew for many more
    sequences may be faster."""
    if case.kind != "cuda":
        return False
    workload = case.workload
    each = workload.typical_sequence or plan.context
    rows = (workload.rows or plan.sequences) * workload.samples
    return plan.kv_tokens < each * min(rows, CROWD)


def weights_fit(profile: ModelProfile, hardware: Hardware) -> bool:
    """Whether the weights leave room for anything else on the device; never on an emulated one,
    which is there to stream."""
    held = profile.shape.weight_bytes + _beside(profile, hardware)
    fits = held <= LARGEST_SHARE * hardware.device_memory.bytes
    return fits and hardware.device != "emulated"


def plan_streamed(case: Case) -> JobPlan:
    """The plan of a job with weights or KV off the device, as far as need be.

    Raises DoesNotFitError with the sum.
    """
    return predicted(_streamed(case, SIMULATED))


def predicted(job_plan: JobPlan) -> JobPlan:
    """The plan with what the job will come to, by simulation."""
    if job_plan.predicted is not None:
        return job_plan
    return replace(job_plan, predicted=predict(job_plan.plan, job_plan.case))


def predict(plan: Plan, case: Case) -> Predicted:
    """What a job will come to with any plan for it, by simulation."""
    recomputes = case.asked.name == "adaptive"
    policy = Policy(
        schedule=schedule_of(case.asked.name),
        form=plan.recompute_form if recomputes else "none",
        forced=case.asked.recompute,
    )
    return simulate(
        case.profile.shape,
        case.rates,
        case.profile.recipe,
        placement_of(plan, case.profile.weights, case.hardware.device),
        lengths_of(case.workload, plan.context),
        policy,
    )


def _beside(profile: ModelProfile, hardware: Hardware) -> int:
    """Bytes of device memory that the process takes beside the model."""
    return 0 if hardware.device.startswith("cuda") else profile.beside_bytes


def _streamed(case: Case, simulated: int) -> JobPlan:
    host, on_disk = case.profile.weights.layers, case.profile.disk_layers
    if case.kind == "cpu":
        case = _with_layers(case, on_disk)
        return JobPlan(plan_offloaded(case, simulated), None, case)
    # Read straight from their files, layers may take some pages more.
    larger = tuple(map(max, host, on_disk))
    if sum(larger) > (1 + _NO_MATTER) * sum(host):
        plan = plan_offloaded(case, simulated)
        if not plan.disk_layers:
            return JobPlan(plan, None, case)
    case = _with_layers(case, larger)
    return JobPlan(plan_offloaded(case, simulated), None, case)


def _with_layers(case: Case, layers: tuple[int, ...]) -> Case:
    weights = WeightSizes(layers, case.profile.weights.outer)
    return replace(case, profile=replace(case.profile, weights=weights))
