"""Where weights and contexts of a run are, in the numbers that its passes are reckoned with."""

from __future__ import annotations

from dataclasses import dataclass

from tightrun.policies.offload_memory import SLOTS, Division, MemorySums, WeightSizes
from tightrun.policies.plan import Plan


@dataclass(frozen=True, slots=True)
class Placement:
    """A run's places and what crosses its links in a pass.

    `lane_blocks` are KV blocks of each batch off the device, `kv_blocks` those on it. Of
    `streamed` layers, `weight_bytes` cross the link and `disk_bytes` come from the disk. Where that
    is straight into the slots (`one_memory`), no byte crosses a link.
    """

    batches: int
    batch_size: int
    prefill_tokens: int
    most_rows: int
    block_tokens: int
    kv_blocks: int
    lane_blocks: int = 0
    streamed: int = 0
    weight_bytes: float = 0.0
    disk_bytes: float = 0.0
    slots: int = 2
    one_memory: bool = False

    @property
    def sequences(self) -> int:
        return self.batches * self.batch_size


def placement_of(plan: Plan, weights: WeightSizes, device: str) -> Placement:
    """The placement of a plan for a model with slabs of these sizes."""
    resident = plan.resident_layers
    kept = set(range(len(weights.layers)) if resident is None else resident)
    streamed = [size for layer, size in enumerate(weights.layers) if layer not in kept]
    one_memory = device.split(":")[0] == "cpu"
    return Placement(
        batches=plan.batches,
        batch_size=plan.batch_size,
        prefill_tokens=plan.prefill_tokens,
        most_rows=plan.most_rows,
        block_tokens=plan.block_tokens,
        kv_blocks=plan.kv_blocks,
        lane_blocks=min(plan.workspace_blocks, max(plan.host_blocks, plan.activation_blocks)),
        streamed=len(streamed),
        weight_bytes=0.0 if one_memory else float(sum(streamed)),
        disk_bytes=float(sum(weights.layers[i] for i in plan.disk_layers)),
        slots=max(2, plan.slots),
        one_memory=one_memory,
    )


def placement_of_division(d: Division, sums: MemorySums) -> Placement:
    """The placement of a way to divide the memories."""
    return Placement(
        batches=d.batches,
        batch_size=d.batch_size,
        prefill_tokens=d.prefill_tokens,
        most_rows=d.most_rows,
        block_tokens=sums.block_tokens,
        kv_blocks=d.kv_blocks,
        lane_blocks=min(d.workspace_blocks, max(d.host_blocks, d.activation_blocks)),
        streamed=sums.layers - d.resident,
        weight_bytes=0.0 if sums.one_memory else float(sums.streamed_bytes(d)),
        disk_bytes=float(sums.disk_bytes(d)),
        slots=SLOTS,
        one_memory=sums.one_memory,
    )
