"""The arithmetic between what was measured and what is printed. Plain numbers only."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import StatisticsError, correlation, median

from tightrun.core import StepRecord

STEADY = 0.05
_SHARES = tuple(i / 1000 for i in range(1001))


@dataclass(frozen=True, slots=True)
class Split:
    """The share of the context that is recomputed, and the seconds of the pass with it."""

    ratio: float
    seconds: float


def best_split(fetch_s: float, saved: float, compute_s: Callable[[float], float]) -> Split:
    """The share `x` for which `max(compute_s(x), fetch_s * (1 - saved * x))` is least.

    `compute_s(x)` is all that the pass computes, `fetch_s` the whole context over the link, `saved`
    the part of a recomputed token's bytes that need not be fetched: 1 if it is replayed from its
    token, half if it is projected from activations as wide as K or V.
    """
    tried = (Split(x, max(compute_s(x), fetch_s * (1 - saved * x))) for x in _SHARES)
    return min(tried, key=lambda split: split.seconds)


def seconds_at(points: Sequence[tuple[int, float]], rows: float) -> float:
    """Seconds of `rows` rows, linear between the probed points `(rows, seconds)`, ascending.

    Below the first it takes as long as the first; above the last in proportion.
    """
    if rows <= points[0][0]:
        return points[0][1]
    if rows >= points[-1][0]:
        return points[-1][1] * rows / points[-1][0]
    at = bisect_left([point for point, _ in points], rows)
    (r0, s0), (r1, s1) = points[at - 1], points[at]
    return s0 + (s1 - s0) * (rows - r0) / (r1 - r0)


def block_bound(
    batches: int, layers: int, batch_layer_s: float, head_s: float, streamed: float, link: float
) -> float:
    """Least seconds of a pass: its compute, or its streamed bytes over the link's bytes/s."""
    return max(batches * layers * batch_layer_s + head_s, streamed / link)


def is_steady(before: float, after: float) -> bool:
    """Whether a probe's figure moved by 5 % at most between two takings."""
    return abs(after / before - 1) <= STEADY


def decodes(steps: Iterable[StepRecord], sequences: int) -> list[StepRecord]:
    """The passes in which all `sequences` were decoded and nothing else was."""
    return [
        step
        for step in steps
        if step.phase == "decode" and step.decode_tokens == step.sequences == sequences
    ]


def median_seconds(steps: Sequence[StepRecord]) -> float:
    """The median pass. There must be one."""
    return median(step.elapsed_s for step in steps)


def plan_error(steps: Sequence[StepRecord]) -> float | None:
    """Median of how far the predicted time of a pass was from the measured one, as a share."""
    planned = [step for step in steps if step.predicted_s > 0]
    if not planned:
        return None
    return median(abs(step.predicted_s / step.elapsed_s - 1) for step in planned)


def correlation_of(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Pearson's; None where one of the two does not vary."""
    try:
        return correlation(xs, ys)
    except StatisticsError:
        return None


def share_of(bound_s: float, measured_s: float | None) -> float | None:
    """Bound over measured; None of nothing."""
    return None if measured_s is None else bound_s / measured_s
