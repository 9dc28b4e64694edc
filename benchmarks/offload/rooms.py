"""How much device memory leaves a plan no choice but the placement that a part measures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.jobs import ModelSize
from benchmarks.offload.models import slab_bytes
from tightrun.policies.hardware import Budget, Rates
from tightrun.policies.offload_plan import PolicyAsked, WeightSizes, plan_offloaded
from tightrun.policies.plan import DoesNotFitError, Plan, Workload
from tightrun.policies.shape import LayerShape, ModelShape

MIB = 2**20
HOST = Budget(2**40, "plenty")
# Only for the search: about two cores.
FLOPS = ((1, 20e9), (16, 140e9), (64, 270e9), (256, 340e9), (1024, 380e9))
MEMORY_BYTES_PER_S = 40e9
LITTLE_KV = 0.02


class NoRoomError(RuntimeError):
    """No size of device memory leads a plan to the wanted placement."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A pass of `batches` of `batch_size` sequences of up to `context` tokens, and where weights
    and KV are to be."""

    size: ModelSize
    batches: int
    batch_size: int
    context: int
    weights: Literal["streamed", "resident"]
    kv: Literal["device", "host"]
    form: str = "auto"

    def holds(self, plan: Plan) -> bool:
        """Whether a plan is as wanted."""
        resident = plan.resident_layers
        weights = resident is None if self.weights == "resident" else resident == ()
        blocks = self.batches * self.batch_size * -(-self.context // plan.block_tokens)
        if self.kv == "device":
            placed = plan.workspace_blocks == 0 and plan.kv_blocks >= blocks
        else:
            placed = plan.workspace_blocks > 0 and plan.kv_blocks <= LITTLE_KV * blocks
        pass_size = (plan.batches, plan.batch_size) == (self.batches, self.batch_size)
        return weights and placed and pass_size


def device_memory(wanted: Wanted, link: float) -> int:
    """Bytes, in whole MiB, with which a plan for this link (bytes/s) is as wanted: of those with
    the widest prefill the middle, so that a little more or less changes nothing.

    Raises NoRoomError where there are none.
    """
    found = {
        size: plan.prefill_tokens
        for size in _sizes(wanted)
        if (plan := _plan(wanted, size, link)) is not None and wanted.holds(plan)
    }
    if not found:
        raise NoRoomError(f"no device memory leads to {wanted.weights} weights, KV on {wanted.kv}")
    widest = [size for size, tokens in found.items() if tokens == max(found.values())]
    together = [size for size in widest if size - widest[0] <= MIB * widest.index(size)]
    return together[len(together) // 2]


def check(wanted: Wanted, plan: Any) -> None:
    """Raises NoRoomError where the engine's own plan is another than the one searched for."""
    if not wanted.holds(plan):
        raise NoRoomError(
            f"wanted {wanted.weights} weights, KV on {wanted.kv} and {wanted.batches} batches of "
            f"{wanted.batch_size}; planned were {plan.batches} of {plan.batch_size}, "
            f"resident layers {plan.resident_layers}, {plan.kv_blocks} KV blocks on the device, "
            f"{plan.workspace_blocks} in the workspace"
        )


def _sizes(wanted: Wanted) -> Iterator[int]:
    size = wanted.size
    weights = size.layers * slab_bytes(size)
    kv = 2 * 2 * size.kv_heads * size.head_dim * size.layers
    kv *= wanted.batches * wanted.batch_size * (wanted.context + 64)
    yield from range(MIB, 2 * (weights + kv) + 1024 * MIB, MIB)


def _plan(wanted: Wanted, nbytes: int, link: float) -> Plan | None:
    size = wanted.size
    sequences = wanted.batches * wanted.batch_size
    outer = 2 * (2 * size.head_parameters + size.hidden)
    try:
        return plan_offloaded(
            _shape(size),
            WeightSizes((slab_bytes(size),) * size.layers, outer),
            Budget(nbytes, "the benchmark"),
            HOST,
            Rates(FLOPS, MEMORY_BYTES_PER_S, h2d_bytes_per_s=link, d2h_bytes_per_s=link),
            "emulated",
            Workload(rows=sequences, longest_sequence=wanted.context),
            PolicyAsked(wanted.batch_size, wanted.batches, None, wanted.form),
            wanted.context,
        )
    except DoesNotFitError:
        return None


def _shape(size: ModelSize) -> ModelShape:
    layer = LayerShape(
        q_heads=size.heads,
        kv_heads=size.kv_heads,
        key_dim=size.head_dim,
        value_dim=size.head_dim,
        dense_parameters=size.dense_parameters // size.layers,
        weight_bytes=slab_bytes(size),
    )
    return ModelShape(
        layers=(layer,) * size.layers,
        hidden=size.hidden,
        vocab=size.vocab,
        parameters=size.parameters,
        weight_bytes=2 * size.parameters,
        head_parameters=size.head_parameters,
        element_bytes=2,
        widest=max(size.intermediate, size.hidden),
        context=1024,
    )
