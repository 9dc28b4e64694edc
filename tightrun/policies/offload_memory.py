"""The sums of an offloaded run: what each way to divide the memories takes, to the byte."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from tightrun.policies.plan import logits_bytes, workspace_bytes
from tightrun.policies.shape import ModelShape

# One slot is computed with while the other fills.
SLOTS = 2
# One buffer of KV is computed on, one fills for the next batch.
BUFFERS = 2
STAGING_SLOTS = 2


@dataclass(frozen=True, slots=True)
class WeightSizes:
    """Bytes of the weights as they lie: each layer's slab, and all that is outside the layers."""

    layers: tuple[int, ...]
    outer: int

    @property
    def largest(self) -> int:
        return max(self.layers, default=0)


class Division(NamedTuple):
    """One way to divide the memories; `resident` counts layers, the blocks are those of a Plan."""

    resident: int
    batches: int
    batch_size: int
    prefill_tokens: int
    most_rows: int
    kv_blocks: int = 0
    workspace_blocks: int = 0
    host_blocks: int = 0
    activation_blocks: int = 0
    disk: int = 0


def even_residents(layers: int, streamed_count: int) -> tuple[int, ...]:
    """The resident layers, spread evenly between `streamed_count` streamed ones."""
    streamed = set(even_choice(tuple(range(layers)), streamed_count))
    return tuple(i for i in range(layers) if i not in streamed)


def even_choice(layers: tuple[int, ...], count: int) -> tuple[int, ...]:
    """`count` of the layers, evenly spread."""
    assert 0 <= count <= len(layers)
    return tuple(layers[(2 * i + 1) * len(layers) // (2 * count)] for i in range(count))


_DEVICE_ARENAS = (
    "beside", "outer", "hidden", "workspace", "logits",
    "resident", "slots", "kv", "attention", "activations", "staging",
)  # fmt: skip
_HOST_ARENAS = ("beside", "weights", "disk staging", "kv", "activations", "staging")


class MemorySums:
    """Bytes per arena of a model's divisions.

    On a CPU (`one_memory`) the device's memory is the host's, streamed layers come from the disk
    straight into the slots, and `beside` is what the process holds in no ledger. With `gathers`
    attention lays the keys and values of a batch side by side before it reads them.
    """

    def __init__(
        self,
        shape: ModelShape,
        weights: WeightSizes,
        block_tokens: int,
        beside: int,
        *,
        one_memory: bool,
        activations: bool,
        gathers: bool = False,
    ) -> None:
        self.shape = shape
        self.weights = weights
        self.block_tokens = block_tokens
        self.beside = beside
        self.one_memory = one_memory
        self.copies = int(gathers)
        self.layers = len(weights.layers)
        self.largest = weights.largest
        self._layers_bytes = sum(weights.layers)
        self._disk_bytes: dict[tuple[int, int], int] = {}
        self.block_bytes = shape.kv_block_bytes(block_tokens)
        self.activation_block_bytes = (
            block_tokens * shape.hidden * shape.element_bytes if activations else 0
        )

    def device(self, d: Division) -> dict[str, int]:
        """Bytes of device memory by arena."""
        return dict(zip(_DEVICE_ARENAS, self._device(d), strict=True))

    def device_bytes(self, d: Division) -> int:
        """All of them together."""
        return sum(self._device(d))

    def passing_bytes(self, d: Division) -> int:
        """What every pass needs of device memory wherever weights and KV are."""
        return sum(self._passing(d))

    def host(self, d: Division) -> dict[str, int]:
        """Bytes of host memory by arena; all in the device's sum where that is one memory."""
        return {} if self.one_memory else dict(zip(_HOST_ARENAS, self._host(d), strict=True))

    def host_bytes(self, d: Division) -> int:
        """All of them together."""
        return 0 if self.one_memory else sum(self._host(d))

    def _device(self, d: Division) -> tuple[int, ...]:
        return (
            *self._passing(d),
            self.resident_bytes[d.resident],
            SLOTS * self.largest if d.resident < self.layers else 0,
            (self.layers * d.kv_blocks + BUFFERS * d.workspace_blocks) * self.block_bytes,
            self.copies * (d.kv_blocks + d.workspace_blocks) * self.block_bytes,
            BUFFERS * d.activation_blocks * self.activation_block_bytes,
            self.staging_bytes(d),
        )

    def _passing(self, d: Division) -> tuple[int, ...]:
        return (
            self.beside if self.one_memory else 0,
            self.weights.outer,
            (d.batches - 1) * d.most_rows * self._row_bytes,
            workspace_bytes(self.shape, d.most_rows),
            logits_bytes(self.shape, d.batch_size),
        )

    def _host(self, d: Division) -> tuple[int, ...]:
        kept = d.batches * self.layers
        return (
            self.beside,
            self.streamed_bytes(d) - self.disk_bytes(d),
            STAGING_SLOTS * self.largest if d.disk else 0,
            kept * d.host_blocks * self.block_bytes,
            kept * d.activation_blocks * self.activation_block_bytes,
            self.staging_bytes(d),
        )

    def staging_rows(self, d: Division) -> int:
        """New rows of one batch and layer that may have to be written out."""
        return min(d.most_rows, d.workspace_blocks * self.block_tokens)

    def staging_bytes(self, d: Division) -> int:
        """Bytes of the buffers in which new rows wait to be written out, on either side."""
        row = self.block_bytes // self.block_tokens
        if d.activation_blocks:
            row = max(row, self.activation_block_bytes // self.block_tokens)
        return BUFFERS * self.staging_rows(d) * row

    def streamed_bytes(self, d: Division) -> int:
        """Bytes of the weights that cross the link in a pass."""
        return self._layers_bytes - self.resident_bytes[d.resident]

    def disk_layers(self, d: Division) -> tuple[int, ...]:
        """The streamed layers that lie on the disk, evenly spread between the others."""
        resident = set(even_residents(self.layers, self.layers - d.resident))
        streamed = tuple(i for i in range(self.layers) if i not in resident)
        return even_choice(streamed, d.disk)

    def disk_bytes(self, d: Division) -> int:
        """Bytes of the weights that come from the disk in a pass."""
        key = d.resident, d.disk
        if key not in self._disk_bytes:
            self._disk_bytes[key] = sum(self.weights.layers[i] for i in self.disk_layers(d))
        return self._disk_bytes[key]

    @cached_property
    def resident_bytes(self) -> list[int]:
        """Bytes of the resident layers by their count."""
        sizes, count = self.weights.layers, self.layers
        return [sum(sizes[i] for i in even_residents(count, count - n)) for n in range(count + 1)]

    @cached_property
    def _row_bytes(self) -> int:
        """What a row of a waiting batch keeps between stages: its state and rotary angles."""
        widest = max((x.key_dim for x in self.shape.layers), default=0)
        return (self.shape.hidden + 2 * widest) * self.shape.element_bytes
