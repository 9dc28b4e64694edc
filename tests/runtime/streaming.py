"""Slabs of random bytes, and the loop's way through a pass, for tests of the weight loader."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from tightrun.runtime.device import Device, FileRange, Happening, Move, Urgency
from tightrun.runtime.slab import Tier
from tightrun.runtime.weights import StreamedWeights, Weights


@dataclass
class StandInBindings:
    slab: StandInSlab
    view: torch.Tensor

    def bind(self) -> None:
        self.slab.bound = self.view


class StandInSlab:
    """A slab whose `bound` is what its layer would compute with, and `bytes` what it should."""

    def __init__(self, layer: int, nbytes: int, file: Path | None = None) -> None:
        self.layer = layer
        self.nbytes = nbytes
        self.tier: Tier = "host" if file is None else "disk"
        self.grain = 256 if file is None else 4096
        self.bytes = torch.randint(0, 256, (nbytes,), dtype=torch.uint8)
        self.bound: torch.Tensor | None = None
        self.slots: list[int] = []  # addresses it was prepared for
        if file is not None:
            file.write_bytes(self.bytes.numpy().tobytes())
            self.descriptor = os.open(file, os.O_RDONLY)

    def moves(self, begin: int, end: int, slot: torch.Tensor) -> list[Move]:
        assert begin % self.grain == 0
        assert end % self.grain == 0 or end == self.nbytes
        if self.tier == "host":
            return [Move(slot[begin:end], self.bytes[begin:end])]
        return [Move(slot[begin:end], FileRange(self.descriptor, begin, end - begin))]

    def bindings(self, slot: torch.Tensor) -> StandInBindings:
        self.slots.append(slot.data_ptr())
        return StandInBindings(self, slot[: self.nbytes])


def host_slabs(layers: Sequence[int], nbytes: int) -> dict[int, StandInSlab]:
    return {layer: StandInSlab(layer, nbytes) for layer in layers}


class Loop:
    """Passes over `stages`, the last the head, in the order of the three policies.

    Whenever a streamed layer computes, all its bytes must be there: `computed` counts how often
    they were. `stage_ends` are the times at which each stage that computes was over, by stage.
    """

    def __init__(
        self,
        device: Device,
        weights: Weights,
        slabs: dict[int, StandInSlab],
        stages: int,
        kv_bytes: int = 0,
    ) -> None:
        self.device = device
        self.weights = weights
        self.slabs = slabs
        self.stages = stages
        self.kv_bytes = kv_bytes
        self.computed = 0
        self.stage_ends: list[tuple[int, float]] = []
        self._fetched: Happening = device.mark()

    def sliced(self, batches: int, rooms: Sequence[int] | None = None, until: int = -1) -> None:
        """Our order; given up before stage `until` if that is not -1."""
        self.weights.begin_pass(rooms or [0] * batches)
        for stage in range(self.stages if until < 0 else until):
            self.weights.wait(stage)
            for batch in range(batches):
                self.weights.send_slice(behind=batch)
                fetched, self._fetched = self._fetched, self._fetch()
                self.device.wait(fetched)
                self._compute(stage, batch)
            self.stage_ends.append((stage, self.device.now()))

    def static(self, batches: int) -> None:
        """FlexGen's order: all of the next layer behind the first batch, a barrier after each."""
        self.weights.begin_pass([0] * batches)
        for stage in range(self.stages):
            self.weights.wait(stage)
            sent = self.weights.send_next()
            for batch in range(batches):
                self._compute(stage, batch)
                self.device.settle(*sent)

    def in_order(self, batches: int) -> None:
        """Nothing beside anything else: each batch loads every layer for itself."""
        self.weights.begin_pass([0] * batches)
        for batch in range(batches):
            for stage in range(self.stages):
                self.weights.load(stage)
                self._compute(stage, batch)
                self.weights.drop(stage)

    def _fetch(self) -> Happening:
        """The KV of the next batch, one batch ahead."""
        if not self.kv_bytes:
            return self.device.mark()
        kv = torch.zeros(self.kv_bytes, dtype=torch.uint8)
        return self.device.link_in.send([Move(kv.clone(), kv)], Urgency.FETCH, "fetch")

    def _compute(self, stage: int, batch: int) -> None:
        slab = self.slabs.get(stage)
        # As on a GPU, what the work will see is bound now, and read when its time comes.
        work = partial(self._check, slab, slab.bound if slab else None)
        self.device.compute(f"compute {stage} {batch}", work)

    def _check(self, slab: StandInSlab | None, bound: torch.Tensor | None) -> None:
        if slab is None:
            return
        assert bound is not None
        assert torch.equal(bound, slab.bytes), f"layer {slab.layer} computed before it was there"
        self.computed += 1


def streaming(
    device: Device,
    slabs: dict[int, StandInSlab],
    stages: int,
    slots: int = 2,
    staging: int = 0,
    kv_bytes: int = 0,
) -> Loop:
    """A loop over streamed slabs with poisoned slots."""
    weights = StreamedWeights(device, slabs, stages, slots, poison=True, staging=staging)
    return Loop(device, weights, slabs, stages, kv_bytes)


def batch_seconds(seconds: float) -> Callable[[str], float]:
    """Durations of computing: `seconds` for each batch and stage, nothing for what is not ours."""
    return lambda name: seconds if name.startswith("compute") else 0.0
