"""A plan as people read it: lines under labels, and a table of the memories."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tightrun.cli import units
from tightrun.cli.planning import InputFacts, Planned
from tightrun.cli.sections import Section, aligned
from tightrun.policies.hardware import Budget, Hardware, Rates
from tightrun.policies.plan import Plan, Predicted
from tightrun.policies.planner import JobPlan
from tightrun.policies.profile import ModelProfile

VLLM = (
    "everything fits on the GPU: vLLM may be faster for this job. tightrun is made for what "
    "does not fit"
)
_BOUND_BY = {
    "compute": "computing",
    "memory": "the memory of the device",
    "h2d": "the link to the device",
    "d2h": "the link from the device",
    "disk": "the disk",
}
_ARENAS = {
    "beside": "this process",
    "outer": "embedding, head",
    "hidden": "waiting rows",
    "resident": "resident layers",
    "slots": "layer slots",
    "kv": "KV",
}
_LEAST_SHARE = 0.005


def planned_sections(planned: Planned) -> Iterator[Section]:
    """Everything that `tightrun plan` says, top to bottom; no section is empty."""
    profile = planned.known.profile
    yield Section("model", [model_line(profile)])
    yield Section("machine", list(_machine(planned.hardware, planned.known.rates)))
    yield Section("rows", list(rows_lines(planned.facts)))
    if planned.job_plan is None:
        yield Section("", [planned.refusal])
        if planned.nearest:
            settings = [f"{each.key}: {each.value}   {each.text}" for each in planned.nearest]
            yield Section("fits with", settings)
        return
    yield from job_plan_sections(planned.job_plan)
    if planned.advice:
        yield Section("faster", [
            f"{units.change(1 + each.gain)} with {each.text}" for each in planned.advice
        ])  # fmt: skip
    if may_suit_vllm(planned.job_plan):
        yield Section("note", [VLLM])


def headline(planned: Planned) -> str:
    """Whether the job fits and how long it takes, in one line."""
    if planned.job_plan is None:
        return "This job does not fit."
    predicted = planned.job_plan.predicted
    if predicted is None or not predicted.seconds:
        return "This job fits."
    return f"This job fits and takes {_pace(predicted)}."


def short_lines(job_plan: JobPlan) -> Iterator[str]:
    """The plan in a few lines: the time, what goes where, the batches, and the memories."""
    for section in run_sections(job_plan):
        if section.label not in ("memory", "speed"):
            yield from section.lines
    for name, arenas, budget in _memories(job_plan.plan, job_plan.case.hardware):
        held = units.size_of(sum(arenas.values()), budget.bytes)
        yield f"{name} memory planned: {held} ({budget.limit})"


def run_sections(job_plan: JobPlan) -> Iterator[Section]:
    """The plan as a run begins with it: the time, and all that was decided."""
    if job_plan.case.workload.rows and job_plan.predicted and job_plan.predicted.seconds:
        rows = units.rows(job_plan.case.workload.rows)
        yield Section("plan", [f"{rows} in {_pace(job_plan.predicted)}"])
    yield from job_plan_sections(job_plan)


def job_plan_sections(job_plan: JobPlan) -> Iterator[Section]:
    """What goes where, in which batches, and how fast that is."""
    plan, case = job_plan.plan, job_plan.case
    yield Section("placement", list(_placement(plan, case.profile, case.hardware.device)))
    yield Section("schedule", list(_schedule(plan, case.asked.name)))
    yield Section("memory", memory_table(plan, case.hardware))
    if job_plan.predicted is not None:
        yield Section("speed", list(_speed(job_plan.predicted)))


def rows_lines(facts: InputFacts) -> Iterator[str]:
    """How many rows, their tokens, and how well those are known."""
    workload, estimate = facts.workload, facts.estimate
    rows = workload.rows or 0
    about = f"{units.rows(rows)} of {units.count(facts.prompt_tokens)} prompt tokens"
    known = "taken, not counted"
    if estimate.sampled:
        off = "" if math.isnan(estimate.error) else f", ±{100 * estimate.error:.1f} %"
        known = f"counted in {units.rows(estimate.sampled)}{off}"
    yield f"{about}: {estimate.bytes_per_token:.2f} bytes per token ({known})"
    output = workload.typical_output
    if output is not None:
        samples = f"{workload.samples} samples of " if workload.samples > 1 else ""
        why = "as in an earlier run" if facts.learnt else "all that max_tokens allows"
        yield f"{samples}{units.count(output)} new tokens a row expected, {why}"


def memory_table(plan: Plan, hardware: Hardware) -> list[str]:
    """Planned bytes by arena for each memory, their sum, and the budget with what limits it."""
    memories = _memories(plan, hardware)
    held = [{name: size for name, size in arenas.items() if size} for _, arenas, _ in memories]
    rows = [["", *(name for name, _, _ in memories)]]
    for arena in dict.fromkeys(name for arenas in held for name in arenas):
        sizes = (units.size(arenas[arena]) if arena in arenas else "" for arenas in held)
        rows.append([_ARENAS.get(arena, arena), *sizes])
    rows.append(["planned", *(units.size(sum(arenas.values())) for arenas in held)])
    rows.append(["may be used", *(units.size(budget.bytes) for _, _, budget in memories)])
    return [*aligned(rows), *(f"{name}: {budget.limit}" for name, _, budget in memories)]


def _memories(plan: Plan, hardware: Hardware) -> list[tuple[str, dict[str, int], Budget]]:
    """Name, planned bytes by arena, and budget."""
    if hardware.device.split(":")[0] == "cpu":
        return [("CPU", plan.arenas, hardware.host_memory)]
    return [
        ("GPU", plan.arenas, hardware.device_memory),
        ("CPU", plan.host_arenas, hardware.host_memory),
    ]


def may_suit_vllm(job_plan: JobPlan) -> bool:
    """Whether all is on a GPU, where there is a vLLM for it."""
    return job_plan.case.hardware.device.startswith("cuda") and not job_plan.plan.offloads


def model_line(profile: ModelProfile) -> str:
    """What the model is, and how many bytes it takes."""
    shape = profile.shape
    return (
        f"{profile.name}, {units.parameters(shape.parameters)} in {profile.dtype}: "
        f"{units.size(shape.weight_bytes)}, KV {units.size(shape.kv_bytes_per_token)} a token"
    )


def _pace(predicted: Predicted) -> str:
    return (
        f"about {units.duration(predicted.seconds)}, at "
        f"{units.rate(predicted.output_tokens_per_s)} of output; {_BOUND_BY[predicted.binding]} "
        "sets the pace"
    )


def _machine(hardware: Hardware, rates: Rates) -> Iterator[str]:
    rows, best = max(rates.flops_per_s, key=lambda point: point[1])
    name = f"{hardware.device}, {hardware.cores} processors" if hardware.cores else hardware.device
    yield (
        f"{name}, {units.flops(best)} at {units.count(rows)} rows, memory "
        f"{units.bandwidth(rates.memory_bytes_per_s)}"
    )
    ways = {
        "to the device": rates.h2d_bytes_per_s,
        "from the device": rates.d2h_bytes_per_s,
        "from disk": rates.disk_bytes_per_s,
    }
    links = [f"{units.bandwidth(rate)} {way}" for way, rate in ways.items() if rate]
    if links:
        yield ", ".join(links)


def _placement(plan: Plan, profile: ModelProfile, device: str) -> Iterator[str]:
    where = {"cpu": "in memory", "cuda": "on the GPU"}.get(device.split(":")[0], "on the device")
    layers = len(profile.shape.layers)
    resident = f"all {layers}"
    if plan.resident_layers is not None:
        resident = f"{len(plan.resident_layers)} of {layers}"
    kv = f"the KV of {units.count(plan.kv_tokens)} tokens" if plan.kv_blocks else "no KV"
    yield f"{resident} layers and {kv} are {where}"
    # The first reason is the limit, which stands below the memories.
    yield from plan.reasons[1:]


def _schedule(plan: Plan, policy: str) -> Iterator[str]:
    batches = "1 batch" if plan.batches == 1 else f"{plan.batches} batches"
    size = "1 sequence" if plan.batch_size == 1 else f"{units.count(plan.batch_size)} sequences"
    yield f"{policy}: a pass takes {batches} of up to {size}"
    yield (
        f"and {units.count(plan.prefill_tokens)} prompt tokens each; sequences of up to "
        f"{units.count(plan.context)} tokens"
    )


def _speed(predicted: Predicted) -> Iterator[str]:
    yield (
        f"prefill {units.rate(predicted.prefill_tokens_per_s)}, decode "
        f"{units.rate(predicted.decode_tokens_per_s)}; "
        f"{units.rate(predicted.output_tokens_per_s)} of output over the whole job"
    )
    if predicted.seconds:
        shares = [(seconds / predicted.seconds, name) for name, seconds in predicted.busy_s]
        busy = [f"{name} {100 * x:.0f} %" for x, name in sorted(shares)[::-1] if x >= _LEAST_SHARE]
        yield f"busy: {', '.join(busy)}"
