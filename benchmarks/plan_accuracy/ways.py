"""Other plans that were possible: those next to the chosen one, those that promise most, and some
from anywhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

from tightrun.policies.plan import Plan

NEAR_SHARE, PROMISING_SHARE = 0.4, 0.3
# In doublings of a batch: all layers to and from the device, and contexts to the host.
LAYERS_APART, CONTEXTS_APART = 4.0, 2.0


class Way(NamedTuple):
    """What makes two plans different ways to run a job."""

    batches: int
    batch_size: int
    prefill_tokens: int
    resident: int
    disk: int
    contexts_away: bool

    def __str__(self) -> str:
        away = ", contexts away" if self.contexts_away else ""
        disk = f", {self.disk} on disk" if self.disk else ""
        return (
            f"{self.batches} x {self.batch_size}, {self.prefill_tokens} prefill, "
            f"{self.resident} layers resident{disk}{away}"
        )


def way_of(plan: Plan, layers: int) -> Way:
    """The way that a plan of a model of so many layers is."""
    resident = layers if plan.resident_layers is None else len(plan.resident_layers)
    return Way(
        plan.batches,
        plan.batch_size,
        plan.prefill_tokens,
        resident,
        len(plan.disk_layers),
        plan.workspace_blocks > 0,
    )


def apart(one: Way, other: Way, layers: int) -> float:
    """How different two ways are: doublings of every size, shares of layers, where contexts are."""
    sizes = zip(one[:3], other[:3], strict=True)
    return (
        sum(abs(math.log2(x / y)) for x, y in sizes)
        + LAYERS_APART * abs(one.resident - other.resident) / layers
        + LAYERS_APART * abs(one.disk - other.disk) / layers
        + CONTEXTS_APART * (one.contexts_away != other.contexts_away)
    )


def others(
    chosen: Plan, possible: Iterable[Plan], layers: int, count: int, random: Random
) -> dict[Way, Plan]:
    """`count` plans that are other ways than the chosen one, or as many as there are.

    Two fifths are the nearest to it, three tenths those of the highest predicted speed, the rest
    drawn from all.
    """
    own = way_of(chosen, layers)
    ways: dict[Way, Plan] = {}
    for plan in possible:
        way = way_of(plan, layers)
        if way != own:
            ways.setdefault(way, plan)
    near = sorted(ways, key=lambda way: apart(way, own, layers))[: round(NEAR_SHARE * count)]
    promising = _without(near, sorted(ways, key=lambda way: -ways[way].predicted_tokens_per_s))
    picked = [*near, *promising[: round(PROMISING_SHARE * count)]]
    left = _without(picked, list(ways))
    picked += random.sample(left, min(len(left), count - len(picked)))
    return {way: ways[way] for way in picked}


def _without(taken: Sequence[Way], ways: Sequence[Way]) -> list[Way]:
    return [way for way in ways if way not in taken]
