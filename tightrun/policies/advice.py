"""What would make a job faster, and what would make one that does not fit possible at all.

Every figure comes from planning again with the other machine or setting: nothing is estimated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from tightrun.policies.case import Case
from tightrun.policies.hardware import Budget
from tightrun.policies.plan import DoesNotFitError
from tightrun.policies.planner import JobPlan, plan_job, plan_sizes, predicted

GIB = 2**30
# Less is not worth a sentence.
LEAST_GAIN = 0.02
MOST_ADVICE = 3
# A memory is not raised to more times than it has, nor to more than a machine of today.
MOST_TIMES, MOST_MEMORY = 64, 4096 * GIB


@dataclass(frozen=True, slots=True)
class Advice:
    """A change of the machine or of the job, and the output tokens/s that it would give.

    `gain` is the share of today's output tokens/s that this is more, such as 0.4.
    """

    key: str
    text: str
    output_tokens_per_s: float
    gain: float


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting with which a job fits that does not as it is; `text` says so in a sentence."""

    key: str
    value: str
    text: str


def what_would_help(job_plan: JobPlan) -> tuple[Advice, ...]:
    """Up to three changes that would make the job faster, the best first; none that gains next to
    nothing. Those that do so by mean passes are simulated."""
    # Both sides are planned in the same quick way, so that only the change makes a difference.
    now = plan_sizes(job_plan.case, simulated=1)
    speed = _output_tokens_per_s(now)
    if not speed:
        return ()
    tried = [(key, text, _sized(changed)) for key, text, changed in _changes(now.case)]
    better = [
        (_mean_gain(now, then), key, text, then) for key, text, then in tried if then is not None
    ]
    found = []
    for gain, key, text, then in sorted(better, key=lambda item: -item[0])[:MOST_ADVICE]:
        faster = _output_tokens_per_s(then) if gain >= LEAST_GAIN else speed
        if faster / speed - 1 >= LEAST_GAIN:
            found.append(Advice(key, text, faster, faster / speed - 1))
    return tuple(sorted(found, key=lambda advice: -advice.gain))


def nearest_that_fit(case: Case) -> tuple[Setting, ...]:
    """Up to three settings with which a job fits that does not, each tried by planning with it."""
    found = (_with_disk(case), _shorter(case), _more_host(case), _more_device(case))
    return tuple(setting for setting in found if setting is not None)[:3]


def _sized(case: Case) -> JobPlan | None:
    """The plan of a case, None if it does not fit."""
    try:
        return plan_sizes(case, simulated=1)
    except DoesNotFitError:
        return None


def _mean_gain(now: JobPlan, then: JobPlan) -> float:
    """How much faster by mean passes; infinite where all is resident, which has no such speed."""
    before, after = now.plan.predicted_tokens_per_s, then.plan.predicted_tokens_per_s
    return after / before - 1 if before and after else math.inf


def _output_tokens_per_s(job_plan: JobPlan) -> float:
    found = predicted(job_plan).predicted
    assert found is not None
    return found.output_tokens_per_s


def _fits(case: Case) -> bool:
    # What holds the whole job holds one sequence of it, and there are far fewer ways to do so.
    one = replace(case, workload=replace(case.workload, rows=1, samples=1))
    try:
        plan_job(one, simulated=0)
    except DoesNotFitError:
        return False
    return True


def _with_host(case: Case, nbytes: int) -> Case:
    hardware = case.hardware
    host = Budget(nbytes, hardware.host_memory.limit)
    device = host if case.kind == "cpu" else hardware.device_memory
    return replace(case, hardware=replace(hardware, host_memory=host, device_memory=device))


def _with_device(case: Case, nbytes: int) -> Case:
    device = Budget(nbytes, case.hardware.device_memory.limit)
    return replace(case, hardware=replace(case.hardware, device_memory=device))


def _changes(case: Case) -> Iterator[tuple[str, str, Case]]:
    """Changes worth a try: a key, what it says, and the case as changed."""
    host, device, rates = case.hardware.host_memory, case.hardware.device_memory, case.rates
    more = host.bytes // 2
    yield (
        "cpu_memory",
        f"{more / GIB:,.0f} GiB more host memory",
        _with_host(case, host.bytes + more),
    )
    if case.kind != "cpu":
        text = "8 GiB more GPU memory"
        yield "gpu_memory", text, _with_device(case, device.bytes + 8 * GIB)
        faster = replace(
            rates,
            h2d_bytes_per_s=2 * rates.h2d_bytes_per_s,
            d2h_bytes_per_s=2 * rates.d2h_bytes_per_s,
            duplex_bytes_per_s=2 * rates.duplex_bytes_per_s,
        )
        yield "link", "twice the link to the GPU", replace(case, rates=faster)
    if rates.disk_bytes_per_s:
        faster = replace(rates, disk_bytes_per_s=2 * rates.disk_bytes_per_s)
        yield "disk", "a disk twice as fast", replace(case, rates=faster)
    half = max(1, min(case.window, case.workload.longest_sequence or case.window) // 2)
    text = f"contexts of at most {half:,} tokens"
    yield "context", text, replace(case, context=half)


def _least(fits: Callable[[int], bool], low: int, high: int, step: int) -> int | None:
    """The least multiple of `step` above `low` that fits, up to `high`; None if `high` does not."""
    a, b = low // step, -(-high // step)
    if not fits(b * step):
        return None
    while b - a > 1:
        middle = (a + b) // 2
        if fits(middle * step):
            b = middle
        else:
            a = middle
    return b * step


def _with_disk(case: Case) -> Setting | None:
    """The disk, where a person has forbidden it."""
    allowed = replace(case, asked=replace(case.asked, disk=True))
    if case.asked.disk or not _fits(allowed):
        return None
    return Setting("limits.disk", "auto", "with layers read from the disk in every pass it fits")


def _shorter(case: Case) -> Setting | None:
    """The longest context that fits."""
    low, high = 0, case.window
    while high - low > 1:
        middle = (low + high) // 2
        if _fits(replace(case, context=middle)):
            low = middle
        else:
            high = middle
    if not low:
        return None
    return Setting("limits.context", str(low), f"contexts of at most {low:,} tokens fit")


def _more_host(case: Case) -> Setting | None:
    now = case.hardware.host_memory.bytes
    return _more_memory(now, partial(_with_host, case), "cpu_memory", "host memory")


def _more_device(case: Case) -> Setting | None:
    if case.kind == "cpu":
        return None
    now = case.hardware.device_memory.bytes
    return _more_memory(now, partial(_with_device, case), "gpu_memory", "GPU memory")


def _more_memory(now: int, changed: Callable[[int], Case], key: str, name: str) -> Setting | None:
    """The least of a memory with which the job fits."""
    step = 2**20 if now < 8 * GIB else GIB
    most = min(MOST_TIMES * now, max(MOST_MEMORY, now))
    found = _least(lambda nbytes: _fits(changed(nbytes)), now, most, step)
    if found is None:
        return None
    value = f"{found // GIB}GiB" if step == GIB else f"{found // 2**20}MiB"
    return Setting(f"limits.{key}", value, f"with {value} of {name} it fits")
