"""The time of one pass on each resource, from counts alone.

`bound_s` is the least time the hardware allows: the largest of compute, memory traffic and links at
the probed rates, never a time taken from our own loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tightrun.policies.hardware import Rates
from tightrun.policies.shape import ModelShape

# The names of a bound's fields in their order, as the reports have them.
RESOURCES = ("compute", "memory", "h2d", "d2h", "disk")


@dataclass(frozen=True, slots=True)
class PassWork:
    """What one pass, or one batch of it, computes and moves.

    `attended` is the sum, over query tokens, of the keys each sees. `recomputed_tokens` are those
    of `tokens` that are replayed; `projected_tokens` have their keys and values made again from
    stored activations, which takes `projection_flops` over all layers.
    """

    tokens: int
    logit_rows: int
    attended: int
    context_tokens: int
    weight_bytes_in: int = 0
    kv_bytes_in: int = 0
    kv_bytes_out: int = 0
    disk_bytes: int = 0
    recomputed_tokens: int = 0
    projected_tokens: int = 0
    projection_flops: float = 0.0


@dataclass(frozen=True, slots=True)
class PassBound:
    """Least seconds of a pass per resource; `binding` names the largest."""

    compute_s: float
    memory_s: float
    link_in_s: float = 0.0
    link_out_s: float = 0.0
    disk_s: float = 0.0

    @property
    def seconds(self) -> tuple[float, float, float, float, float]:
        """Seconds in the order of RESOURCES."""
        return self.compute_s, self.memory_s, self.link_in_s, self.link_out_s, self.disk_s

    @property
    def bound_s(self) -> float:
        return max(self.seconds)

    @property
    def binding(self) -> str:
        """`compute`, `memory`, `h2d`, `d2h` or `disk`; the first of them where several bind."""
        return RESOURCES[self.seconds.index(self.bound_s)]


def pass_flops(shape: ModelShape, work: PassWork) -> float:
    """Dense, head, attention and projection FLOPs of one pass."""
    return (
        shape.dense_flops_per_token * work.tokens
        + shape.head_flops_per_row * work.logit_rows
        + shape.attention_flops(1, work.attended)
        + work.projection_flops
    )


def seconds_on(nbytes: float, bytes_per_s: float) -> float:
    """Seconds a link takes for the bytes; none where there is no such link."""
    return nbytes / bytes_per_s if bytes_per_s > 0 else 0.0


def bound_of_pass(shape: ModelShape, rates: Rates, work: PassWork) -> PassBound:
    """The bound of one batch; what is not on its links is resident on the device."""
    compute_s = (
        shape.dense_flops_per_token * work.tokens / rates.flops_at(work.tokens)
        + shape.head_flops_per_row * work.logit_rows / rates.flops_at(work.logit_rows)
        + shape.attention_flops(1, work.attended) / rates.best_flops_per_s
    )
    if work.projected_tokens:
        compute_s += work.projection_flops / rates.flops_at(work.projected_tokens)
    traffic = shape.weight_bytes + shape.kv_bytes_per_token * work.context_tokens
    return PassBound(
        compute_s,
        traffic / rates.memory_bytes_per_s,
        seconds_on(work.weight_bytes_in + work.kv_bytes_in, rates.h2d_bytes_per_s),
        seconds_on(work.kv_bytes_out, rates.d2h_bytes_per_s),
        seconds_on(work.disk_bytes, rates.disk_bytes_per_s),
    )


def bound_of_block(shape: ModelShape, rates: Rates, works: Iterable[PassWork]) -> PassBound:
    """The bound of a pass of several batches: each resource serves one after the other."""
    bounds = [bound_of_pass(shape, rates, work).seconds for work in works]
    return PassBound(*(sum(seconds) for seconds in zip(*bounds, strict=True)))
