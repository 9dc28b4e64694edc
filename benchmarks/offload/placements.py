"""Where weights and KV are in a part of the benchmark, whatever a plan would choose.

A plan looks for the fastest way: it would not stream what fits, nor fetch a context over a link so
slow that fewer sequences at a time are faster. Here the way is given and the schedule is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.jobs import ModelSize
from benchmarks.offload.models import slab_bytes
from tightrun.policies.offload_memory import (
    BUFFERS,
    SLOTS,
    Division,
    MemorySums,
    WeightSizes,
)
from tightrun.policies.plan import Plan
from tightrun.policies.shape import LayerShape, ModelShape

BLOCK_TOKENS = 16
PREFILL_TOKENS = 2048
SPARE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Placement:
    """A pass of `batches` of `batch_size` sequences of up to `context` tokens. Weights are all
    streamed or all resident; KV is on the device, or in host memory in the forms that `form` has.
    """

    size: ModelSize
    batches: int
    batch_size: int
    context: int
    weights: Literal["streamed", "resident"]
    kv: Literal["device", "host"]
    form: Literal["tokens", "activations", "none"] = "none"

    def of(self, plan: Plan) -> Plan:
        """The plan with everything where it is to be."""
        d = self.division
        return replace(
            plan,
            batch_size=d.batch_size,
            batches=d.batches,
            prefill_tokens=d.prefill_tokens,
            most_rows=d.most_rows,
            block_tokens=BLOCK_TOKENS,
            context=self.context,
            resident_layers=None if self.weights == "resident" else (),
            disk_layers=(),
            slots=0 if self.weights == "resident" else SLOTS,
            staging_slots=0,
            kv_blocks=d.kv_blocks,
            workspace_blocks=d.workspace_blocks,
            buffers=BUFFERS + (self.kv == "host"),
            host_blocks=d.host_blocks,
            activation_blocks=d.activation_blocks,
            staging_rows=self._sums.staging_rows(d),
            recompute_form=self.form,
            arenas=self._arenas,
            host_arenas=self._sums.host(d),
        )

    @property
    def device_bytes(self) -> int:
        """The sum of what is on the device, and a little."""
        return sum(self._arenas.values()) + SPARE_BYTES

    @property
    def _arenas(self) -> dict[str, int]:
        """The bytes on the device, with a third buffer of KV as a plan with room takes it."""
        d, sums = self.division, self._sums
        arenas = sums.device(d)
        arenas["kv"] += d.workspace_blocks * sums.block_bytes
        arenas["activations"] += d.activation_blocks * sums.activation_block_bytes
        return arenas

    @property
    def division(self) -> Division:
        """How the memories are divided. A batch has room to replay all of its context."""
        blocks = self.batch_size * -(-self.context // BLOCK_TOKENS)
        away = blocks if self.kv == "host" else 0
        replayed = away * BLOCK_TOKENS if self.form == "tokens" else 0
        return Division(
            resident=self.size.layers if self.weights == "resident" else 0,
            batches=self.batches,
            batch_size=self.batch_size,
            prefill_tokens=PREFILL_TOKENS,
            most_rows=max(PREFILL_TOKENS, self.batch_size + replayed),
            kv_blocks=0 if away else self.batches * blocks,
            workspace_blocks=away,
            host_blocks=away,
            activation_blocks=away if self.form == "activations" else 0,
        )

    @property
    def _sums(self) -> MemorySums:
        size = self.size
        outer = 2 * (2 * size.head_parameters + size.hidden)
        weights = WeightSizes((slab_bytes(size),) * size.layers, outer)
        return MemorySums(
            shape_of(size),
            weights,
            BLOCK_TOKENS,
            0,
            one_memory=False,
            activations=self.form == "activations",
        )


def shape_of(size: ModelSize) -> ModelShape:
    """The model as the policies see it."""
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
