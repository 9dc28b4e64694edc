"""What would make a job faster, and what would make one that does not fit possible at all.

Every figure comes from planning again with the other machine or setting: nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tightrun.policies.hardware import Budget, Hardware, Rates
from tightrun.policies.offload_plan import PolicyAsked
from tightrun.policies.plan import DoesNotFitError, Workload
from tightrun.policies.planner import JobPlan, plan_job
from tightrun.policies.profile import ModelProfile

GIB = 2**30
# Less is not worth a sentence.
LEAST_GAIN = 0.02
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


@dataclass(frozen=True, slots=True)
class _Case:
    """The arguments of a plan."""

    profile: ModelProfile
    hardware: Hardware
    rates: Rates
    workload: Workload
    asked: PolicyAsked
    context: int | None

    def plan(self, simulated: int) -> JobPlan:
        """The plan; see plan_job for `simulated`."""
        return plan_job(
            self.profile,
            self.hardware,
            self.rates,
            self.workload,
            self.asked,
            self.context,
            simulated,
        )

    def output_tokens_per_s(self) -> float:
        """Output tokens/s of the job; 0.0 if it does not fit."""
        try:
            predicted = self.plan(simulated=1).predicted
        except DoesNotFitError:
            return 0.0
        return predicted.output_tokens_per_s if predicted else 0.0

    def fits(self) -> bool:
        # What holds the whole job holds one sequence of it, and there are far fewer ways to do so.
        one = replace(self, workload=replace(self.workload, rows=1, samples=1))
        try:
            one.plan(simulated=0)
        except DoesNotFitError:
            return False
        return True

    def with_host(self, nbytes: int) -> _Case:
        hardware = self.hardware
        host = Budget(nbytes, hardware.host_memory.limit)
        device = host if self.one_memory else hardware.device_memory
        return replace(self, hardware=replace(hardware, host_memory=host, device_memory=device))

    def with_device(self, nbytes: int) -> _Case:
        device = Budget(nbytes, self.hardware.device_memory.limit)
        return replace(self, hardware=replace(self.hardware, device_memory=device))

    @property
    def one_memory(self) -> bool:
        return self.hardware.device.split(":")[0] == "cpu"

    @property
    def window(self) -> int:
        return min(self.context or self.profile.shape.context, self.profile.shape.context)


def what_would_help(job_plan: JobPlan, context: int | None = None) -> tuple[Advice, ...]:
    """Changes that would make the job faster, the best first; none that gains next to nothing."""
    p = job_plan
    case = _Case(p.profile, p.hardware, p.rates, p.workload, p.asked, context)
    # Both sides are planned in the same quick way, so that only the change makes a difference.
    now = case.output_tokens_per_s()
    found = []
    for key, text, changed in _changes(case):
        then = changed.output_tokens_per_s()
        if now > 0 and then / now - 1 >= LEAST_GAIN:
            found.append(Advice(key, text, then, then / now - 1))
    return tuple(sorted(found, key=lambda advice: -advice.gain))


def nearest_that_fit(
    profile: ModelProfile,
    hardware: Hardware,
    rates: Rates,
    workload: Workload,
    asked: PolicyAsked,
    context: int | None = None,
) -> tuple[Setting, ...]:
    """Up to three settings with which a job fits that does not, each tried by planning with it."""
    case = _Case(profile, hardware, rates, workload, asked, context)
    found = (_with_disk(case), _shorter(case), _more_host(case), _more_device(case))
    return tuple(setting for setting in found if setting is not None)[:3]


def _changes(case: _Case) -> Iterator[tuple[str, str, _Case]]:
    """Changes worth a try: a key, what it says, and the case as changed."""
    host, device, rates = case.hardware.host_memory, case.hardware.device_memory, case.rates
    more = host.bytes // 2
    yield "cpu_memory", f"{more / GIB:,.0f} GiB more host memory", case.with_host(host.bytes + more)
    if not case.one_memory:
        text = "8 GiB more GPU memory"
        yield "gpu_memory", text, case.with_device(device.bytes + 8 * GIB)
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


def _with_disk(case: _Case) -> Setting | None:
    """The disk, where a person has forbidden it."""
    allowed = replace(case, asked=replace(case.asked, disk=True))
    if case.asked.disk or not allowed.fits():
        return None
    return Setting("limits.disk", "auto", "with layers read from the disk in every pass it fits")


def _shorter(case: _Case) -> Setting | None:
    """The longest context that fits."""
    low, high = 0, case.window
    while high - low > 1:
        middle = (low + high) // 2
        if replace(case, context=middle).fits():
            low = middle
        else:
            high = middle
    if not low:
        return None
    return Setting("limits.context", str(low), f"contexts of at most {low:,} tokens fit")


def _more_host(case: _Case) -> Setting | None:
    return _more_memory(
        case.hardware.host_memory.bytes, case.with_host, "cpu_memory", "host memory"
    )


def _more_device(case: _Case) -> Setting | None:
    if case.one_memory:
        return None
    return _more_memory(
        case.hardware.device_memory.bytes, case.with_device, "gpu_memory", "GPU memory"
    )


def _more_memory(now: int, changed: Callable[[int], _Case], key: str, name: str) -> Setting | None:
    """The least of a memory with which the job fits."""
    step = 2**20 if now < 8 * GIB else GIB
    most = min(MOST_TIMES * now, max(MOST_MEMORY, now))
    found = _least(lambda nbytes: changed(nbytes).fits(), now, most, step)
    if found is None:
        return None
    value = f"{found // GIB}GiB" if step == GIB else f"{found // 2**20}MiB"
    return Setting(f"limits.{key}", value, f"with {value} of {name} it fits")
