"""The plan of a run whose weights or KV cache are larger than the device."""

from __future__ import annotations

from collections.abc import Iterator

from tightrun.policies.case import Case
from tightrun.policies.forms import choose_form
from tightrun.policies.offload_choice import (
    OFFLOADED_BLOCK_TOKENS,
    SIMULATED,
    Choice,
    Job,
    choose,
    possible,
)
from tightrun.policies.offload_memory import (
    BUFFERS,
    SLOTS,
    STAGING_SLOTS,
    even_residents,
)
from tightrun.policies.offload_refusal import refusal
from tightrun.policies.plan import BLOCK_TOKENS, LEAST_CONTEXT, DoesNotFitError, Plan

__all__ = [
    "SIMULATED",
    "even_residents",
    "plan_offloaded",
    "possible_plans",
]

# A third buffer of KV spares link and computing the waiting for each other where a batch takes a
# little longer or shorter than its neighbour: 5 % of a pass when both are equally busy.
# Slots beyond two carry the link over long stages, such as the head: memory that nothing else wants
# is given to them, up to so many.
MOST_SLOTS = 4


def plan_offloaded(case: Case, simulated: int = SIMULATED) -> Plan:
    """Choose what is resident, what is streamed from where, and how many batches of what size.

    The fastest for this job by the cost model, of all ways that fit, the best `simulated` of them
    by simulation; what is simpler is taken where it costs little. On a CPU both budgets are
    one memory (that of the device counts), streamed layers come from the disk, and the KV stays.
    Raises DoesNotFitError with the sum.
    """
    job, why = _job(case)
    choice = choose(job, simulated)
    if choice is None:
        least = min(job.longest, LEAST_CONTEXT)
        search = job.search(_least_block(job), least, "none")
        raise DoesNotFitError(refusal(search, job.device, job.host))
    return _plan(job, choice, why)


def possible_plans(case: Case) -> Iterator[Plan]:
    """Every plan that `plan_offloaded` chooses from, with its speed by mean passes."""
    job, why = _job(case)
    for choice in possible(job):
        yield _plan(job, choice, why)


def _job(case: Case) -> tuple[Job, str]:
    """The job of a search, and a sentence on the form that context is recomputed in."""
    profile, hardware, asked = case.profile, case.hardware, case.asked
    form, why = choose_form(profile.recipe, case.rates, asked.form, asked.recompute)
    job = Job(
        profile.shape, profile.weights, hardware.device_memory, hardware.host_memory, case.rates,
        case.kind, case.workload, asked, case.window, profile.beside_bytes, profile.recipe, form,
    )  # fmt: skip
    return job, why


def _least_block(job: Job) -> int:
    return BLOCK_TOKENS[job.kind] if job.kind == "cpu" else OFFLOADED_BLOCK_TOKENS


def _plan(job: Job, choice: Choice, why: str) -> Plan:
    d, sums = choice.division, choice.sums
    streamed = sums.layers - d.resident
    arenas = sums.device(d)
    slots, buffers = 0, BUFFERS
    spare = job.device.bytes - sum(arenas.values())
    kv = d.workspace_blocks * sums.block_bytes
    states = d.activation_blocks * sums.activation_block_bytes
    if d.workspace_blocks and kv + states <= spare:
        buffers, spare = BUFFERS + 1, spare - kv - states
        arenas["kv"] += kv
        arenas["activations"] += states
    if streamed:
        slots = min(SLOTS + max(0, spare // sums.largest), streamed, MOST_SLOTS)
        arenas["slots"] = slots * sums.largest
    context = min(job.window, max(d.kv_blocks, d.workspace_blocks) * sums.block_tokens)
    return Plan(
        batch_size=d.batch_size,
        batches=d.batches,
        prefill_tokens=d.prefill_tokens,
        block_tokens=sums.block_tokens,
        kv_blocks=d.kv_blocks,
        context=context,
        arenas={name: size for name, size in arenas.items() if size},
        reasons=tuple(_reasons(job, choice, context, why)),
        resident_layers=even_residents(sums.layers, streamed) if streamed else None,
        disk_layers=sums.disk_layers(d),
        slots=slots,
        staging_slots=STAGING_SLOTS if d.disk and not sums.one_memory else 0,
        workspace_blocks=d.workspace_blocks,
        buffers=buffers,
        host_blocks=d.host_blocks,
        activation_blocks=d.activation_blocks,
        staging_rows=sums.staging_rows(d),
        most_rows=d.most_rows,
        recompute_form=job.form if d.workspace_blocks else "none",
        predicted_tokens_per_s=choice.tokens_per_s,
        host_arenas={name: size for name, size in sums.host(d).items() if size},
    )


def _reasons(job: Job, choice: Choice, context: int, why: str) -> Iterator[str]:
    """Sentences that say what goes where, and why."""
    d, sums = choice.division, choice.sums
    yield f"{job.device.limit} allows {job.device.bytes / 2**30:.1f} GiB"
    if d.resident < sums.layers:
        disk = f", {d.disk} of them from the disk" if d.disk else ""
        gib = sums.streamed_bytes(d) / 2**30
        yield (
            f"{sums.layers - d.resident} of {sums.layers} layers are streamed{disk}: "
            f"{gib:.1f} GiB a pass of {d.batches} batches of {d.batch_size} sequences"
        )
    if d.workspace_blocks:
        tokens = d.batches * d.host_blocks * sums.block_tokens
        yield f"the KV of {tokens:,} tokens is kept in host memory"
        yield why if job.policy.name == "adaptive" else f"{job.policy.name} recomputes nothing"
    elif job.policy.recompute:
        yield "all KV is resident: the recompute ratio asked for has no effect"
    if context < job.longest:
        yield f"the KV cache holds {context:,} tokens of a sequence: longer rows are refused"
