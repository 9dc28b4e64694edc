"""The time of one pass on each resource, from counts alone.

`bound_s` is the least time the hardware allows: the largest of compute and memory traffic at the
probed rates, never a time taken from our own loop.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrun.policies.hardware import Rates
from tightrun.policies.shape import ModelShape


@dataclass(frozen=True, slots=True)
class PassWork:
    """What one pass computes. `attended` is the sum, over query tokens, of the keys each sees."""

    tokens: int
    logit_rows: int
    attended: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class PassBound:
    """Least seconds of a pass per resource; `binding` names the largest."""

    compute_s: float
    memory_s: float

    @property
    def bound_s(self) -> float:
        return max(self.compute_s, self.memory_s)

    @property
    def binding(self) -> str:
        return "compute" if self.compute_s >= self.memory_s else "memory"


def pass_flops(shape: ModelShape, work: PassWork) -> float:
    """Dense, head and attention FLOPs of one pass."""
    return (
        shape.dense_flops_per_token * work.tokens
        + shape.head_flops_per_row * work.logit_rows
        + shape.attention_flops(1, work.attended)
    )


def bound_of_pass(shape: ModelShape, rates: Rates, work: PassWork) -> PassBound:
    """The bound of a pass with all weights and KV resident on the device."""
    rate = rates.flops_at(work.tokens)
    compute_s = (
        shape.dense_flops_per_token * work.tokens / rate
        + shape.head_flops_per_row * work.logit_rows / rates.flops_at(work.logit_rows)
        + shape.attention_flops(1, work.attended) / rates.best_flops_per_s
    )
    traffic = shape.weight_bytes + shape.kv_bytes_per_token * work.context_tokens
    return PassBound(compute_s, traffic / rates.memory_bytes_per_s)
