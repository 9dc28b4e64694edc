"""The plan of a run whose weights or KV cache are larger than the device."""

from __future__ import annotations

from dataclasses import dataclass

from tightrun.policies.hardware import Budget, Rates
from tightrun.policies.plan import Plan, Workload
from tightrun.policies.shape import ModelShape


@dataclass(frozen=True, slots=True)
class WeightSizes:
    """Bytes of the weights as they lie: each layer's slab, and all that is outside the layers."""

    layers: tuple[int, ...]
    outer: int


@dataclass(frozen=True, slots=True)
class PolicyAsked:
    """What a person has set; None or "auto" where the plan may choose.

    `batch_size` are sequences per batch, `batches` batches per pass, `recompute` a ratio.
    """

    batch_size: int | None = None
    batches: int | None = None
    recompute: float | None = None
    form: str = "auto"


def plan_offloaded(
    shape: ModelShape,
    weights: WeightSizes,
    device: Budget,
    host: Budget,
    rates: Rates,
    kind: str,
    workload: Workload,
    policy: PolicyAsked,
    context: int | None = None,
    *,
    host_beside: int = 0,
) -> Plan:
    """Choose what is resident, what is streamed from where, and how many batches of what size.

    `host_beside` are bytes of host memory already taken by what is not in a ledger.
    Raises DoesNotFitError with the sum.
    """
    raise NotImplementedError


def even_residents(layers: int, streamed_count: int) -> tuple[int, ...]:
    """The resident layers, spread evenly between `streamed_count` streamed ones."""
    assert 0 <= streamed_count <= layers
    streamed = {(2 * i + 1) * layers // (2 * streamed_count) for i in range(streamed_count)}
    return tuple(i for i in range(layers) if i not in streamed)
