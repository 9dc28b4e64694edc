"""The plan of a job before it runs: what is known of its input, its model and its machine, and
what the policies make of it. Nothing here imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from tightrun.cli.capacities import disk_within, memory_within
from tightrun.cli.engine_seam import RefusedError
from tightrun.cli.load_engine import (
    longest_prompt_bytes,
    machine_options,
    spill_folder,
    torch_device,
)
from tightrun.cli.machine_rates import described, refuse_unknown_disk
from tightrun.cli.token_estimate import TokenEstimate, estimate_tokens
from tightrun.io.inputs import Scan
from tightrun.io.job import Job, Machine
from tightrun.policies.advice import Advice, Setting, nearest_that_fit, what_would_help
from tightrun.policies.case import Case, PolicyAsked
from tightrun.policies.hardware import Hardware, Rates
from tightrun.policies.plan import DoesNotFitError, Workload
from tightrun.policies.planner import JobPlan, plan_job
from tightrun.policies.profile import Known
from tightrun.policies.workload import workload_of

Notify = Callable[[str], None]


class KnownFor(Protocol):
    """What is known of a job's model on its machine; finds it out where nobody has yet. With rates
    that are `given`, it is the model alone that is found out about."""

    def __call__(self, job: Job, notify: Notify, *, given: Rates | None = None) -> Known: ...


@dataclass(frozen=True, slots=True)
class InputFacts:
    """What a plan knows of the input: the workload, and how well it is known.

    `prompt_tokens` are those of all rows, `learnt` says that the expected outputs are those of
    an earlier run.
    """

    workload: Workload
    estimate: TokenEstimate
    prompt_tokens: int
    learnt: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """The answer of `tightrun plan`.

    `job_plan` is None for a job that does not fit; then `refusal` is the sum, and `nearest` are
    settings with which it would.
    """

    facts: InputFacts
    known: Known
    hardware: Hardware
    job_plan: JobPlan | None
    refusal: str = ""
    advice: tuple[Advice, ...] = ()
    nearest: tuple[Setting, ...] = ()


def input_facts(
    job: Job, scan: Scan, rows: int, notify: Notify, learnt_share: float | None = None
) -> InputFacts:
    """What the first `rows` rows ask for. `learnt_share` is the share of what outputs were allowed
    that those of an earlier run came to; without one, rows are taken to write all they may.

    Raises InputError for an input that is no longer what was scanned.
    """
    estimate = estimate_tokens(job, scan, rows, notify)
    allowed = job.sampling.max_tokens if estimate.output is None else estimate.output
    share = 1.0 if learnt_share is None else learnt_share
    workload = workload_of(
        rows=rows,
        samples=job.sampling.n,
        max_tokens=job.sampling.max_tokens,
        prompt_bytes=longest_prompt_bytes(job, scan, rows),
        prompts=estimate.quantiles(scan.lengths[:rows]),
        expected_output=max(1, round(share * allowed)),
        outputs=tuple(max(1, round(share * tokens)) for tokens in estimate.outputs),
    )
    tokens = round(float(estimate.tokens(scan.lengths[:rows]).sum()))
    return InputFacts(workload, estimate, tokens, learnt_share is not None)


def plan_here(job: Job, facts: InputFacts, known_for: KnownFor, notify: Notify) -> Planned:
    """The plan for the machine of the job: this one, or the one it emulates.

    Raises RefusedError for a model or a device that cannot be used.
    """
    known = known_for(job, notify)
    return decide(facts, known, hardware_of(job), policy_asked(job), job.limits.context)


def plan_there(
    job: Job, machine: Machine, facts: InputFacts, known_for: KnownFor, notify: Notify
) -> Planned:
    """The plan for a machine that is described, and in place of the job's own. An emulated one is
    this machine behind links of the given rates, and may be measured.

    Raises RefusedError for a model that cannot be used, or for a machine that lacks a figure.
    """
    if machine.device == "emulated":
        return plan_here(job.model_copy(update={"hardware": machine}), facts, known_for, notify)
    hardware, rates = described(machine, job.limits)
    there = job.model_copy(update={"hardware": Machine(device=machine.device)})
    known = known_for(there, notify, given=rates)
    asked = policy_asked(job, machine)
    knows_disk = machine.disk_read is not None
    planned = decide(
        facts,
        known,
        hardware,
        replace(asked, disk=asked.disk and knows_disk),
        job.limits.context,
    )
    if asked.disk and not knows_disk and any(x.key == "limits.disk" for x in planned.nearest):
        refuse_unknown_disk(machine)
    return planned


def decide(
    facts: InputFacts, known: Known, hardware: Hardware, asked: PolicyAsked, context: int | None
) -> Planned:
    """The plan, or why there is none and what would change that."""
    case = Case(known.profile, hardware, known.rates, facts.workload, asked, context)
    try:
        job_plan = plan_job(case)
    except DoesNotFitError as error:
        nearest = nearest_that_fit(case)
        return Planned(facts, known, hardware, None, str(error), nearest=nearest)
    advice = what_would_help(job_plan)
    return Planned(facts, known, hardware, job_plan, advice=advice)


def hardware_of(job: Job) -> Hardware:
    """The memories and processors that the job may use. Raises RefusedError for a device that is
    not there, or whose size nobody knows."""
    from tightrun.runtime.limits import find_hardware

    machine = job.hardware if isinstance(job.hardware, Machine) else None
    limits = job.limits
    try:
        return find_hardware(
            torch_device(job),
            memory_within(limits.gpu_memory, machine.gpu_memory if machine else None),
            memory_within(limits.cpu_memory, machine.cpu_memory if machine else None),
            machine_options(machine) if machine else None,
        )
    except ValueError as error:
        raise RefusedError(str(error)) from error


def policy_asked(job: Job, machine: Machine | None = None) -> PolicyAsked:
    """What the job sets of the plan itself; of the disk, what `machine` or its own leaves."""
    policy = job.policy
    if machine is None and isinstance(job.hardware, Machine):
        machine = job.hardware
    disk = disk_within(job.limits.disk, machine.disk if machine else None, spill_folder(os.environ))
    return PolicyAsked(
        policy.batch_size,
        policy.batches,
        policy.recompute,
        policy.recompute_form,
        policy.name,
        disk=disk != 0,
    )
