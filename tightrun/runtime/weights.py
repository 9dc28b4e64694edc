"""The weight loader: the loop asks it before each stage, and offers it room behind each batch.

Streamed layers follow each other in a ring over all passes. Each goes into a slot as soon as the
layer before it in that slot is over, in slices, one behind each batch computed until it is due:
FlexGen (arXiv 2303.06865, section 4.1) loads all of a layer behind the first batch; TightLLM cuts
it. Stages are counted over all passes, so that neither the head nor the border of passes, nor a
resident layer, is a special case.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from tightrun.runtime.device import Device, Happening, Move, Transfer, Urgency
from tightrun.runtime.read_ahead import ReadAhead, Staged
from tightrun.runtime.slab import Slab


class Weights(Protocol):
    """What the loop knows of weights. A stage is a layer, or the head after the last one.

    Overlapped: `begin_pass`, then for each stage `wait` and for each batch `send_slice`
    (FlexGen's order: `send_next` once per stage instead). In order: `load` and `drop`.
    """

    @property
    def bytes_sent(self) -> int:
        """Bytes sent into slots so far; only grows."""

    @property
    def disk_bytes(self) -> int:
        """Bytes read from disk so far; only grows."""

    def begin_pass(self, rooms: Sequence[int], head_rooms: Sequence[int] = ()) -> None:
        """Say what the pass is: one entry per batch, the bytes of weights that can arrive
        while the batch computes one layer, 0 if that is not known. The same for the head, which
        may take longer; without it the layers' entries stand."""

    def wait(self, stage: int) -> None:
        """Return once the weights of the stage may be used; those of the last one no longer."""

    def send_slice(self, behind: int) -> None:
        """Use the time batch `behind` computes to send a slice of the next streamed layers."""

    def send_next(self) -> Sequence[Transfer]:
        """Send all of the next streamed layer that has a slot and is not sent yet."""

    def load(self, stage: int) -> None:
        """Send the stage's weights when all before is over, and wait for them."""

    def drop(self, stage: int) -> None:
        """The stage that was loaded is over."""


class ResidentWeights:
    """Every layer is on the device already: nothing to wait for, nothing to send."""

    bytes_sent = 0
    disk_bytes = 0

    def begin_pass(self, rooms: Sequence[int], head_rooms: Sequence[int] = ()) -> None:
        """Nothing to plan."""

    def wait(self, stage: int) -> None:
        """The weights may always be used."""

    def send_slice(self, behind: int) -> None:
        """Nothing to send."""

    def send_next(self) -> Sequence[Transfer]:
        """Nothing to send."""
        return ()

    def load(self, stage: int) -> None:
        """The weights are there."""

    def drop(self, stage: int) -> None:
        """The weights stay."""


@dataclass(slots=True)
class _Arrival:
    """A slab that has a slot: to be sent, on its way, or there."""

    slab: Slab
    due: int  # the stage that uses it, counted over all passes
    slot: int
    free: Happening  # the slot may be written to
    sent: int = 0
    slices: list[Transfer] = field(default_factory=list)
    staged: Staged | None = None

    @property
    def missing(self) -> int:
        return self.slab.nbytes - self.sent


class StreamedWeights:
    """Streamed layers in slots of device memory; all other layers are resident.

    `slabs` are the streamed layers, `stages` the layers and the head. The device holds exactly
    `slots` times the largest slab. Slabs on disk go through `staging` slots of host memory, read
    ahead; with 0 the disk link reads straight into the slots, as a CPU can. `poison` fills a slot
    with 0xFF (NaN in every floating type) when its layer is over, so that a test sees any use of
    bytes that have not arrived.
    """

    def __init__(
        self,
        device: Device,
        slabs: Mapping[int, Slab],
        stages: int,
        slots: int,
        poison: bool = False,
        staging: int = 0,
    ) -> None:
        assert slabs, "nothing to stream"
        assert slots > 0, "nowhere to stream to"
        assert all(0 <= layer < stages - 1 for layer in slabs), "the head is not streamed"
        on_disk = [slabs[layer] for layer in sorted(slabs) if slabs[layer].tier == "disk"]
        assert staging or not on_disk or device.kind == "cpu", "slabs on disk need staging"
        self._device = device
        self._slabs = dict(slabs)
        self._ring = sorted(slabs)
        self._stages = stages
        self._poison = poison
        self._reads = ReadAhead(device, on_disk, staging) if on_disk and staging else None
        size = max(slab.nbytes for slab in slabs.values())
        self._slots = [device.empty(size, "slots") for _ in range(slots)]
        self._bindings = [
            {layer: slab.bindings(slot) for layer, slab in slabs.items()} for slot in self._slots
        ]
        empty = device.mark()
        self._free: deque[tuple[int, Happening]] = deque((slot, empty) for slot in range(slots))
        self._arrivals: deque[_Arrival] = deque()
        self._used: _Arrival | None = None
        self._now = -1  # the stage under way, counted over all passes
        self._last_due = -1
        self._rooms: Sequence[int] = (0,)
        self._head_rooms: Sequence[int] = (0,)
        self._direct_disk_bytes = 0
        self.bytes_sent = 0

    @property
    def disk_bytes(self) -> int:
        """Bytes read from disk so far; only grows."""
        return self._direct_disk_bytes + (self._reads.nbytes if self._reads else 0)

    def begin_pass(self, rooms: Sequence[int], head_rooms: Sequence[int] = ()) -> None:
        """Say what the pass is; see `Weights`."""
        assert rooms, "a pass has a batch"
        assert len(head_rooms) in (0, len(rooms))
        self._rooms, self._head_rooms = rooms, head_rooms or rooms

    def wait(self, stage: int) -> None:
        """Return once the weights of the stage may be used; those of the last one no longer."""
        arrival = self._begin(stage)
        self._read_ahead()  # before waiting: the disk has no rest either
        self._use(arrival)

    def send_slice(self, behind: int) -> None:
        """Send what must go behind this batch for every layer to be in time, or what the link
        can carry beside the KV if that is more."""
        self._give_slots()
        in_head = self._now % self._stages == self._stages - 1
        rooms = self._head_rooms if in_head else self._rooms
        room = max(self._pace(behind), rooms[behind])
        for arrival in self._arrivals:
            if room <= 0:
                break
            if arrival.missing:
                room -= self._send(arrival, room)
        self._read_ahead()

    def send_next(self) -> Sequence[Transfer]:
        """Send all of the next streamed layer that has a slot and is not sent yet."""
        self._give_slots()
        for arrival in self._arrivals:
            if arrival.missing:
                self._send(arrival, arrival.missing)
                self._read_ahead()
                return arrival.slices
        return ()

    def load(self, stage: int) -> None:
        """Send the stage's weights when all before is over, and wait for them."""
        self._device.settle(self._device.mark())
        self._use(self._begin(stage))

    def drop(self, stage: int) -> None:
        """The stage that was loaded is over."""
        assert stage == self._now % self._stages, f"stage {stage} was not loaded last"
        self._release_used()

    def _begin(self, stage: int) -> _Arrival | None:
        """Begin the stage, and send what is missing of its weights; None if they are resident.

        What was due between the last stage and this one is given up.
        """
        self._now += (stage - self._now - 1) % self._stages + 1
        self._release_used()
        while self._arrivals and self._arrivals[0].due < self._now:
            self._release(self._arrivals.popleft())
        if stage not in self._slabs:
            return None
        if not self._arrivals:
            self._give_slot()
        arrival = self._arrivals.popleft()
        assert arrival.due == self._now
        self._send(arrival, arrival.missing)
        return arrival

    def _use(self, arrival: _Arrival | None) -> None:
        if arrival is None:
            return
        self._used = arrival
        self._device.wait(*arrival.slices)
        self._bindings[arrival.slot][arrival.slab.layer].bind()

    def _release_used(self) -> None:
        if self._used is not None:
            self._release(self._used)
            self._used = None

    def _release(self, arrival: _Arrival) -> None:
        """Give the slot back: free from the point where all that uses it is over."""
        self._device.wait(*(piece for piece in arrival.slices if not piece.done))
        if arrival.staged is not None and self._reads is not None:
            self._reads.give_back(arrival.staged)
        if self._poison:
            slot = self._slots[arrival.slot]
            self._device.compute("poison", lambda: _fill(slot))
        # The mark comes after the poison, and the next transfer into the slot after the mark.
        self._free.append((arrival.slot, self._device.mark()))

    def _give_slots(self) -> None:
        while self._free:
            self._give_slot()

    def _give_slot(self) -> None:
        """Give the slot that has been free longest to the next layer of the ring."""
        slot, free = self._free.popleft()
        count, stage = divmod(max(self._now, self._last_due + 1), self._stages)
        place = bisect_left(self._ring, stage)
        count, place = (count, place) if place < len(self._ring) else (count + 1, 0)
        layer = self._ring[place]
        self._last_due = count * self._stages + layer
        self._arrivals.append(_Arrival(self._slabs[layer], self._last_due, slot, free))

    def _pace(self, behind: int) -> int:
        """Bytes to send behind this batch so that, going on so, every layer that has a slot is
        there in time."""
        batches = len(self._rooms)
        missing, pace = 0, 0
        for arrival in self._arrivals:
            missing += arrival.missing
            chances = (arrival.due - self._now) * batches - behind
            pace = max(pace, -(-missing // chances))
        return pace

    def _send(self, arrival: _Arrival, nbytes: int) -> int:
        """Send the next bytes of a slab, at least `nbytes` unless that is all; returns how many."""
        slab, begin = arrival.slab, arrival.sent
        end = min(slab.nbytes, begin + -(-nbytes // slab.grain) * slab.grain)
        if begin == end:
            return 0
        slot = self._slots[arrival.slot]
        after = [] if arrival.free.done else [arrival.free]
        link = self._device.link_in
        staged = self._staged(arrival)
        if staged is not None:
            after += staged.reads_of(begin, end)
            moves = [Move(slot[begin:end], staged.buffer[begin:end])]
        else:
            moves = slab.moves(begin, end, slot)
            if slab.tier == "disk":
                link = self._device.disk
        if moves:
            name = f"weights {slab.layer} {len(arrival.slices)}"
            transfer = link.send(moves, Urgency.WEIGHTS, name, after)
            arrival.slices.append(transfer)
            self.bytes_sent += transfer.nbytes
            if staged is not None:
                staged.sent.append((begin, end, transfer))
            elif slab.tier == "disk":
                self._direct_disk_bytes += transfer.nbytes
        arrival.sent = end
        if staged is not None and end == slab.nbytes and self._reads is not None:
            self._reads.give_back(staged)
            arrival.staged = None
        return end - begin

    def _staged(self, arrival: _Arrival) -> Staged | None:
        """The slab's staging slot, with its reads under way; None if it goes through none."""
        if self._reads is None or arrival.slab.tier != "disk":
            return None
        if arrival.staged is None:
            arrival.staged = self._reads.take(arrival.slab)
        return arrival.staged

    def _read_ahead(self) -> None:
        if self._reads is not None:
            self._reads.fill()


def _fill(slot: torch.Tensor) -> None:
    slot.fill_(0xFF)
