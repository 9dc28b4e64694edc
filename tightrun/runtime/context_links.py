"""Moves contexts between host and device: fetched before a layer, written back behind it.

The host region of a batch and layer has the layout of the fetch workspace, so what lies together
there moves as one plain copy. Single new rows are gathered on the device, cross the link together
and are spread by the processor.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from tightrun.runtime.batch import Batch
from tightrun.runtime.batch_context import Rows, Runs
from tightrun.runtime.device import Device, Happening, Move, Urgency
from tightrun.runtime.happenings import TransferFailedError
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.kv_layout import LayerCache

# One is filled by the device while the rows of the other cross and are spread.
STAGINGS = 2
_WORDS = {2: (torch.int16, np.int16), 4: (torch.int32, np.int32)}


@dataclass(slots=True)
class _Staging:
    """Where gathered rows wait: on the device to cross, on the host to be spread."""

    device: torch.Tensor
    host: torch.Tensor
    crossed: list[Happening] = field(default_factory=list)
    spread: list[Happening] = field(default_factory=list)


class ContextLinks:
    """Fetches and stores for the batches of a pass. `state_width` elements are a token's
    activations, 0 where they are not held."""

    def __init__(
        self,
        device: Device,
        cache: KVCache,
        staging_rows: int,
        state_width: int = 0,
        *,
        poison: bool = False,
    ) -> None:
        self._device, self._cache, self._poison = device, cache, poison
        self.staging_rows = staging_rows
        self.buffers = cache.rooms.buffers
        layout, rooms = cache.layout, cache.rooms
        self._item = layout.dtype.itemsize
        self._windows = [x.window for x in layout.shape.layers]
        self._state_bytes = cache.block_tokens * state_width * self._item
        regions = rooms.lanes * len(self._windows)
        self._region_bytes = rooms.stored * layout.block_bytes
        self._host = device.empty_host(regions * self._region_bytes, "kv")
        self._state_region_bytes = rooms.activations * self._state_bytes
        self._host_states = device.empty_host(regions * self._state_region_bytes, "activations")
        self._states = device.empty(rooms.buffers * self._state_region_bytes, "activations")
        row_bytes = max(layout.block_bytes // cache.block_tokens, state_width * self._item)
        self._staging = [
            _Staging(
                device.empty(staging_rows * row_bytes, "write-back"),
                device.empty_host(staging_rows * row_bytes, "write-back"),
            )
            for _ in range(STAGINGS)
        ]
        self._turn = 0
        self._buffer = 0
        self._fetches: dict[tuple[int, int], tuple[int, list[Happening]]] = {}
        self._used: list[list[Happening]] = [[] for _ in range(rooms.buffers)]
        self._written: dict[tuple[int, int], list[Happening]] = {}
        self._under_way: list[Happening] = []
        self.bytes_in = 0
        self.bytes_out = 0

    def fetch(self, layer: int, batch: Batch) -> None:
        """Send for the part of the batch's context that the layer fetches."""
        context = batch.context
        if context is None:
            return
        buffer, self._buffer = self._buffer, (self._buffer + 1) % self.buffers
        if self._poison:
            self._device.settle(*self._used[buffer])
            self._cache.workspace(buffer).fill_(0xFF)
            self._state_workspace(buffer).fill_(0xFF)
            self._used[buffer] = [self._device.mark()]
        region = self._region(batch.lane, layer)
        moves = self._run_moves(
            context.fetched(self._windows[layer]),
            self._cache.workspace(buffer),
            region,
            self._cache.layout.block_bytes,
        )
        if self._state_bytes:
            moves += self._run_moves(
                context.projected.states,
                self._state_workspace(buffer),
                self._state_region(batch.lane, layer),
                self._state_bytes,
            )
        after = [*self._used[buffer], *self._written.get((batch.lane, layer), [])]
        self._used[buffer] = []
        if moves:
            self.bytes_in += sum(m.nbytes for m in moves)
            after = [
                self._device.link_in.send(
                    moves, Urgency.FETCH, f"kv in {layer} batch {batch.index}", after
                )
            ]
            self._under_way += after
        self._fetches[layer, batch.index] = (buffer, after)

    def arrive(self, layer: int, batch: Batch) -> None:
        """Let the layer's computing wait for what was fetched, and point the batch at it."""
        if batch.context is None:
            return
        buffer, happenings = self._fetches.pop((layer, batch.index))
        self._device.wait(*happenings)
        batch.context.buffer = buffer
        batch.point(layer, buffer)

    def fetched_states(self, batch: Batch, source: torch.Tensor, width: int) -> torch.Tensor:
        """Stored activations `[tokens, width]` of the layer under way."""
        assert batch.context is not None
        held = self._state_workspace(batch.context.buffer).view(self._cache.layout.dtype)
        return held.view(-1, width)[source]

    def gather_rows(self, layer: int, batch: Batch, key: torch.Tensor, value: torch.Tensor) -> None:
        """Copy the new rows that go out singly into staging: key, value `[kv_heads, tokens, dim]`.

        Part of the layer's computing; `store` sends them.
        """
        assert batch.context is not None
        _, rows = batch.context.stored(self._windows[layer])
        if not rows.count:
            return
        staging = self._free_staging()
        index = torch.from_numpy(rows.rows).to(key.device, non_blocking=True)
        at = 0
        for side in (key, value):
            heads, _, dim = side.shape
            size = rows.count * heads * dim * self._item
            room = staging.device[at : at + size].view(side.dtype).view(rows.count, heads, dim)
            torch.index_select(side.transpose(0, 1), 0, index, out=room)
            at += size

    def store(self, layer: int, batch: Batch) -> None:
        """Write back, behind the computing, what the layer added to the context off the device."""
        context = batch.context
        if context is None:
            return
        runs, rows = context.stored(self._windows[layer])
        done = self._device.mark()
        happenings: list[Happening] = [done]
        before = self._unsettled(batch.lane, layer)
        written: list[Happening] = []
        if runs.blocks:
            moves = [
                Move(there, here)
                for here, there in self._pairs(
                    runs,
                    self._cache.workspace(context.buffer),
                    self._region(batch.lane, layer),
                    self._cache.layout.block_bytes,
                )
            ]
            self.bytes_out += sum(m.nbytes for m in moves)
            transfer = self._device.link_out.send(
                moves, Urgency.STORE, f"kv out {layer} batch {batch.index}", [done, *before]
            )
            happenings.append(transfer)
            written.append(transfer)
        if rows.count:
            written.append(self._send_rows(layer, batch, rows, done, before))
        self._used[context.buffer] = happenings
        self._written[batch.lane, layer] = before + written
        self._under_way += [*happenings, *written]

    def store_states(self, layer: int, batch: Batch, states: torch.Tensor) -> None:
        """Write the activations of those rows of `states` `[tokens, width]` that are to be held."""
        assert batch.context is not None
        rows = batch.context.states_out
        if not rows.count:
            return
        region = self._state_region(batch.lane, layer).view(self._cache.layout.dtype)
        region = region.view(-1, states.shape[-1])
        before = self._unsettled(batch.lane, layer)
        written: list[Happening] = []
        words, _ = _WORDS[self._item]
        for at in range(0, rows.count, max(1, self.staging_rows)):
            some = slice(at, at + self.staging_rows)
            slots = rows.slots[some]
            staging = self._free_staging()
            size = len(slots) * states.shape[-1] * self._item
            room = staging.device[:size].view(states.dtype).view(len(slots), -1)
            picked = torch.from_numpy(rows.rows[some]).to(states.device, non_blocking=True)
            torch.index_select(states, 0, picked, out=room)
            target = region.view(words).numpy()

            def spread(
                target: np.ndarray = target,
                slots: np.ndarray = slots,
                host: torch.Tensor = staging.host[:size],
            ) -> None:
                target[slots] = host.view(words).view(len(slots), -1).numpy()

            written.append(
                self._cross(staging, size, spread, f"states {layer} batch {batch.index}", before)
            )
        self._written[batch.lane, layer] = before + written
        self._under_way += written

    def outstanding(self) -> list[Happening]:
        """All transfers and host work of fetches and stores that may not be over."""
        self._under_way = [x for x in self._under_way if not x.done]
        return self._under_way

    def abandon(self) -> set[int]:
        """The pass is given up: wait until nothing is under way, and forget it.

        Returns the lanes in whose host memory something is missing because it failed on its way.
        """
        torn = {lane for (lane, _), sent in self._written.items() if not self._all_well(sent)}
        for staging in self._staging:
            self._all_well(staging.crossed + staging.spread)
            staging.crossed, staging.spread = [], []
        self._all_well(self.outstanding())
        self._under_way = []
        self._fetches.clear()
        self._used = [[] for _ in self._used]
        self._written.clear()
        return torn

    def _all_well(self, happenings: list[Happening]) -> bool:
        """Wait for all of them, whatever becomes of them."""
        well = True
        for happening in happenings:
            try:
                self._device.settle(happening)
            except TransferFailedError:
                well = False
        return well

    def _unsettled(self, lane: int, layer: int) -> list[Happening]:
        """Writes to a host region that are not over; failed ones, so that what follows fails."""
        sent = self._written.get((lane, layer), [])
        return [x for x in sent if not x.done or x.error is not None]

    def _send_rows(
        self,
        layer: int,
        batch: Batch,
        rows: Rows,
        done: Happening,
        before: list[Happening],
    ) -> Happening:
        staging = self._staging[self._turn]
        shape = self._cache.layout.shape.layers[layer]
        size = rows.count * (shape.key_width + shape.value_width) * self._item
        region = self._cache.layout.view(self._region(batch.lane, layer), layer)

        def spread() -> None:
            self._spread(region, rows, staging.host[:size], shape.key_width)

        return self._cross(
            staging, size, spread, f"rows {layer} batch {batch.index}", [done, *before]
        )

    def _spread(self, region: LayerCache, rows: Rows, host: torch.Tensor, key_width: int) -> None:
        """Put rows that have arrived where they belong. Plain numpy: it must not wake a second
        team of threads beside the one that computes."""
        words, _ = _WORDS[self._item]
        block, offset = (
            rows.slots // self._cache.block_tokens,
            rows.slots % self._cache.block_tokens,
        )
        flat = host.view(words).numpy()
        border = rows.count * key_width
        for side, part in ((region.keys, flat[:border]), (region.values, flat[border:])):
            _, heads, _, dim = side.shape
            side.view(words).numpy()[block, :, offset] = part.reshape(rows.count, heads, dim)

    def _cross(
        self,
        staging: _Staging,
        size: int,
        spread: object,
        name: str,
        after: list[Happening],
    ) -> Happening:
        """Send staged rows over and have them spread; the staging is free when that is over."""
        assert callable(spread)
        transfer = self._device.link_out.send(
            [Move(staging.host[:size], staging.device[:size])],
            Urgency.STORE,
            f"kv out {name}",
            [self._device.mark(), *staging.spread],
        )
        self.bytes_out += size
        work = self._device.host.send(spread, f"spread {name}", [transfer, *after])
        staging.crossed, staging.spread = [transfer], [work]
        return work

    def _free_staging(self) -> _Staging:
        """The next staging, which the device may write to once its last rows have crossed."""
        self._turn = (self._turn + 1) % STAGINGS
        staging = self._staging[self._turn]
        self._device.wait(*staging.crossed)
        return staging

    def _run_moves(
        self, runs: Runs, here: torch.Tensor, there: torch.Tensor, size: int
    ) -> list[Move]:
        return [Move(target, source) for target, source in self._pairs(runs, here, there, size)]

    def _pairs(
        self, runs: Runs, here: torch.Tensor, there: torch.Tensor, size: int
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [
            (here[first * size : end * size], there[first * size : end * size])
            for first, end in runs.runs
        ]

    def _region(self, lane: int, layer: int) -> torch.Tensor:
        at = (lane * len(self._windows) + layer) * self._region_bytes
        return self._host[at : at + self._region_bytes]

    def _state_region(self, lane: int, layer: int) -> torch.Tensor:
        at = (lane * len(self._windows) + layer) * self._state_region_bytes
        return self._host_states[at : at + self._state_region_bytes]

    def _state_workspace(self, buffer: int) -> torch.Tensor:
        size = self._state_region_bytes
        return self._states[buffer * size : (buffer + 1) * size]
