"""Why a run is not as fast as planned: the one rate or assumption that was off the most."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tightrun.policies.measured import Assumed, Comparison, Used

# A run that is off its plan by less needs no explanation.
NOTABLE = 1.25
# Passes, and the share of a job, of which the sooner is the end of the warm-up.
WARM_PASSES, WARM_SHARE = 20, 0.1
# A cause that accounts for less of the gap than this is not called the cause.
LEAST_SHARE = 0.25

_LINKS = {
    "h2d": "the link to the device",
    "d2h": "the link from the device",
    "disk": "the disk",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """`gap` is how many times as long as planned it takes (below 1: it is faster), `cause` the
    resource or assumption that is off the most, `text` a sentence for people."""

    gap: float
    cause: str
    text: str


@dataclass(frozen=True, slots=True)
class _Cause:
    """`effect` is the logarithm of the gap that it would make by itself."""

    name: str
    effect: float
    text: str


def is_warm(passes: int, share_done: float) -> bool:
    """Whether a run has gone on for long enough to be judged."""
    return passes >= WARM_PASSES or (passes > 1 and share_done >= WARM_SHARE)


def explain(run: Comparison, *, whole: bool) -> Explanation | None:
    """The gap between plan and run, None where it is small or nothing can be compared.

    `whole` says that the run is over: before, its passes and the lengths learnt foretell its
    speed. Of all causes that work in the direction of the gap, the one that would make the most of
    it by itself is named. Where the speed is as planned, but rows take longer because they are
    longer (or less because they are shorter), that is told instead.
    """
    rate = _gap_of_rate(run, whole)
    if abs(math.log(rate)) >= math.log(NOTABLE):
        way = "slower" if rate > 1 else "faster"
        return _told(way, rate, list(_causes_of_rate(run, rate)))
    longer = run.output.ratio * rate
    if abs(math.log(longer)) >= math.log(NOTABLE):
        way = "longer" if longer > 1 else "shorter"
        return _told(way, longer, list(_lengths(run, math.log(longer))))
    return None


def _gap_of_rate(run: Comparison, whole: bool) -> float:
    """Planned over measured output tokens per second."""
    planned, measured = run.planned.output_tokens_per_s, run.measured.output_tokens_per_s
    if whole and planned and measured:
        return planned / measured
    return _slowness(run) * _harder(run)


def _slowness(run: Comparison) -> float:
    """How many times as long as by the rates planned with the passes took."""
    return run.passes_s / run.passes_planned_s if run.passes_planned_s and run.passes_s else 1.0


def _harder(run: Comparison) -> float:
    """How much more work a token is, by the lengths of the rows, than was planned for."""
    planned, reachable = run.planned.output_tokens_per_s, run.reachable_tokens_per_s
    return planned / reachable if planned and reachable else 1.0


def _causes_of_rate(run: Comparison, gap: float) -> Iterator[_Cause]:
    busy = {x.resource: x.busy_s for x in run.resources if x.resource != "memory"}
    planned = {x.resource: x.planned_s for x in run.resources if x.resource != "memory"}
    for used in run.resources:
        if used.resource in busy:
            yield _Cause(used.resource, _effect(used.resource, planned, busy), _of_resource(used))
    if busy and run.passes_s and run.passes_planned_s:
        share = run.passes_s / max(busy.values())
        as_planned = run.passes_planned_s / max(planned.values())
        text = f"passes took {share:.2f} times as long as their busiest part: little overlapped"
        yield _Cause("overlap", math.log(share / as_planned), text)
    harder = math.log(_harder(run))
    yield from _lengths(run, harder)
    if run.together.ratio != 1:
        left = math.log(gap / _slowness(run)) - harder
        yield _Cause("together", left, _of_together(run.together))


def _effect(resource: str, planned: dict[str, float], busy: dict[str, float]) -> float:
    """What one resource has made of the time of the busiest, as a logarithm.

    The mean of what it makes longer by itself, and of what would be spared were it as planned:
    of two that are slow together, either has its part.
    """
    alone = max((planned | {resource: busy[resource]}).values()) / max(planned.values())
    spared = max(busy.values()) / max((busy | {resource: planned[resource]}).values())
    return math.log(alone * spared) / 2


def _lengths(run: Comparison, effect: float) -> Iterator[_Cause]:
    """Outputs and prompts share what lengths have made of the speed."""
    off = {"output": run.output, "prompt": run.prompt}
    total = sum(abs(math.log(x.ratio)) for x in off.values())
    for name, x in off.items():
        if total:
            yield _Cause(name, effect * abs(math.log(x.ratio)) / total, _of_length(name, x))


def _told(way: str, gap: float, causes: list[_Cause]) -> Explanation:
    whole = math.log(gap)
    most = max(causes, key=lambda cause: cause.effect / whole, default=None)
    if most is None or most.effect / whole < LEAST_SHARE:
        return Explanation(gap, "", f"{way} than planned: no one rate or length accounts for it")
    return Explanation(gap, most.name, f"{way} than planned: {most.text}")


def _of_resource(used: Used) -> str:
    if used.resource == "compute":
        share = 100 * used.planned_s / used.busy_s
        text = f"compute was at {share:.0f} % of the probed rate"
        return text + (": other work on the processors?" if share < 100 else "")
    measured, planned = _per_s(used.measured_per_s, used.planned_per_s)
    return f"{_LINKS[used.resource]} moved {measured} where {planned} was probed"


def _of_length(name: str, tokens: Assumed) -> str:
    way = "longer" if tokens.ratio > 1 else "shorter"
    return (
        f"{name}s were {way} than expected: {tokens.measured:,.0f} tokens where "
        f"{tokens.planned:,.0f} were planned"
    )


def _of_together(sequences: Assumed) -> str:
    way = "more" if sequences.ratio > 1 else "fewer"
    return (
        f"{way} sequences ran together: {sequences.measured:,.0f} where "
        f"{sequences.planned:,.0f} were planned"
    )


def _per_s(measured: float, planned: float) -> tuple[str, str]:
    """Two rates in the same unit, which the second leaves out."""
    scale, unit = (1e9, "GB/s") if planned >= 1e9 else (1e6, "MB/s")
    digits = 1 if planned / scale < 100 else 0
    return f"{measured / scale:.{digits}f} {unit}", f"{planned / scale:.{digits}f}"
