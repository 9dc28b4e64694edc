"""The plan of a job before it runs: what is known of its input, its model and its machine, and
what the policies make of it. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tightrun.cli.capacities import memory_within
from tightrun.cli.engine_seam import RefusedError
from tightrun.cli.load_engine import longest_prompt_bytes, machine_options, torch_device
from tightrun.cli.token_estimate import TokenEstimate, estimate_tokens
from tightrun.io.inputs import Scan
from tightrun.io.job import Job, Machine
from tightrun.policies.advice import Advice, Setting, nearest_that_fit, what_would_help
from tightrun.policies.hardware import Hardware
from tightrun.policies.offload_plan import PolicyAsked
from tightrun.policies.plan import DoesNotFitError, Workload
from tightrun.policies.planner import JobPlan, plan_job
from tightrun.policies.profile import Known
from tightrun.policies.workload import workload_of

Notify = Callable[[str], None]


class KnownFor(Protocol):
    """What is known of a job's model on its machine; finds it out where nobody has yet."""

    def __call__(self, job: Job, notify: Notify) -> Known: ...


@dataclass(frozen=True, slots=True)
class InputFacts:
    """What a plan knows of the input: the workload, and how well it is known.

    `prompt_tokens` are those of all rows, `learned` says that the expected outputs are those of
    an earlier run.
    """

    workload: Workload
    estimate: TokenEstimate
    prompt_tokens: int
    learned: bool = False


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
    job: Job, scan: Scan, rows: int, notify: Notify, learned_output: float | None = None
) -> InputFacts:
    """What the first `rows` rows ask for. `learned_output` is the mean of an earlier run's outputs
    in tokens; without one, rows are taken to write all they may.

    Raises InputError for an input that is no longer what was scanned.
    """
    estimate = estimate_tokens(job, scan, rows, notify)
    expected = estimate.output if learned_output is None else learned_output
    workload = workload_of(
        rows=rows,
        samples=job.sampling.n,
        max_tokens=job.sampling.max_tokens,
        prompt_bytes=longest_prompt_bytes(job, scan, rows),
        prompts=estimate.quantiles(scan.lengths[:rows]),
        expected_output=None if expected is None else max(1, round(expected)),
    )
    tokens = round(float(estimate.tokens(scan.lengths[:rows]).sum()))
    return InputFacts(workload, estimate, tokens, learned_output is not None)


def plan_here(job: Job, facts: InputFacts, known_for: KnownFor, notify: Notify) -> Planned:
    """The plan for the machine of the job: this one, or the one it describes.

    Raises RefusedError for a model or a device that cannot be used.
    """
    known = known_for(job, notify)
    return decide(job, facts, known, hardware_of(job))


def decide(job: Job, facts: InputFacts, known: Known, hardware: Hardware) -> Planned:
    """The plan, or why there is none and what would change that."""
    profile, rates, context = known.profile, known.rates, job.limits.context
    asked = policy_asked(job)
    try:
        job_plan = plan_job(profile, hardware, rates, facts.workload, asked, context)
    except DoesNotFitError as error:
        nearest = nearest_that_fit(profile, hardware, rates, facts.workload, asked, context)
        return Planned(facts, known, hardware, None, str(error), nearest=nearest)
    advice = what_would_help(job_plan, context)
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


def policy_asked(job: Job) -> PolicyAsked:
    """What the job sets of the plan itself."""
    policy = job.policy
    return PolicyAsked(
        policy.batch_size, policy.batches, policy.recompute, policy.recompute_form, policy.name
    )
