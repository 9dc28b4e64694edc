"""Passes without a model: every slot of device and host holds the name of a token, or nothing."""

from __future__ import annotations

import torch

from tests.runtime.stand_ins import sequence
from tests.runtime.test_kv_cache import SIZE
from tightrun.policies.kv import Form
from tightrun.runtime.batch import Batch, Segment, pack
from tightrun.runtime.batch_context import BatchContext
from tightrun.runtime.context_split import ContextSplit
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.sequence import Sequence

WINDOWS = (None, 6)
Slots = dict[int, int]


class ContextBooks:
    """Runs passes of one lane over a layer that sees everything and one with a sliding window.

    The name of a token is its id, of which there is only one. Whatever a layer reads must have
    arrived, and after each pass everything must be held in the form it is said to have.
    """

    def __init__(self, cache: KVCache, form: Form, staging_rows: int, most_rows: int) -> None:
        self.cache = cache
        self.staging_rows = staging_rows
        self.running: list[Sequence] = []
        self.stored_tokens = 0
        self._split = ContextSplit(cache, form, most_rows)
        self._names = 0
        self._resident: Slots = {}
        self._host: dict[int | None, Slots] = {window: {} for window in WINDOWS}
        self._states: dict[int | None, Slots] = {window: {} for window in WINDOWS}

    def start(self, tokens: int, donor: Sequence | None = None, *, offloaded: bool = True) -> bool:
        """A sequence that begins with what the donor holds; False if there is no room for it."""
        one = sequence([], room=1000)
        self.cache.open(one, offloaded=offloaded)
        if donor is not None:
            one.tokens.extend(donor.tokens[: donor.computed])
            self.cache.adopt(one, donor, donor.computed)
        one.tokens.extend(self._new_names(tokens))
        if not self.cache.can_grow(one, len(one.tokens)):
            self.cache.close(one)
            return False
        self.cache.grow(one, len(one.tokens))
        self.running.append(one)
        return True

    def end(self, one: Sequence) -> None:
        self.running.remove(one)
        self.cache.close(one)

    def step(self, chunks: list[int], recomputed: float, ratio: float) -> BatchContext | None:
        """A pass in which each running sequence computes that many tokens at the most."""
        for one in list(self.running):
            if not self.cache.can_grow(one, len(one.tokens)):
                self.end(one)
            else:
                self.cache.grow(one, len(one.tokens))
        if not self.running:
            return None
        segments = [
            Segment(one, min(one.uncomputed, chunk))
            for one, chunk in zip(self.running, chunks, strict=False)
        ]
        split = self._split.split(segments, recomputed, ratio)
        batch = pack(split.segments, self.cache, torch.device("cpu"))
        context = batch.context = BatchContext.of(split.parts, self.cache, self.staging_rows)
        for window in WINDOWS:
            self._layer(batch, context, window)
        for segment in segments:
            segment.sequence.computed += segment.tokens
            if not segment.sequence.uncomputed:
                segment.sequence.tokens.extend(self._new_names(1))
        self.check_forms()
        self._forget()
        return context

    def check_forms(self) -> None:
        """Every computed token is held in exactly the form that is said."""
        for one in self.running:
            for position in range(one.computed):
                name, where = one.tokens[position], f"token {position} of {one.computed}"
                block = position // SIZE
                if not one.offloaded or block < one.shared:
                    slot = one.blocks[block] * SIZE + position % SIZE
                    assert self._resident.get(slot) == name, where
                elif one.kept.is_stored(block):
                    for window in WINDOWS:
                        if window is None or position > one.computed - window:
                            found = self._host[window].get(self._workspace_slot(one, position))
                            assert found == name, where
                elif one.kept.is_states(block):
                    slot = one.states[block] * SIZE + position % SIZE
                    assert all(states.get(slot) == name for states in self._states.values()), where

    def _forget(self) -> None:
        """What no form needs any more may be overwritten at any time: it is as good as gone."""
        held = [x for x in self.running if x.offloaded]
        stored = {
            self._workspace_slot(one, position)
            for one in held
            for position in range(one.shared * SIZE, one.computed)
            if one.kept.is_stored(position // SIZE)
        }
        states = {block for one in held for block in one.states.values()}
        for window, slots in self._host.items():
            self._host[window] = {k: v for k, v in slots.items() if k in stored}
        for window, slots in self._states.items():
            self._states[window] = {k: v for k, v in slots.items() if k // SIZE in states}

    def _layer(self, batch: Batch, context: BatchContext, window: int | None) -> None:
        host, names = self._host[window], batch.input_ids[0].tolist()
        workspace: Slots = {}
        for first, end in context.fetched(window).runs:
            for slot in range(first * SIZE, end * SIZE):
                if slot in host:
                    workspace[slot] = host[slot]
        border = self.cache.resident * SIZE
        for name, slot in zip(names, batch.slots.tolist(), strict=True):
            if slot < border:
                self._resident[slot] = name
            else:
                workspace[slot - border] = name
        states = self._states[window]
        self._project(context, workspace, states)
        self._attend(batch, workspace, window)
        self._store(context, names, workspace, host, window)
        out = context.states_out
        for row, slot in zip(out.rows.tolist(), out.slots.tolist(), strict=True):
            states[slot] = names[row]

    def _project(self, context: BatchContext, workspace: Slots, states: Slots) -> None:
        projected = context.projected
        fetched = {
            slot for first, end in projected.states.runs for slot in range(first * SIZE, end * SIZE)
        }
        for source, target, name in zip(
            projected.source.tolist(),
            projected.target.tolist(),
            projected.ids.tolist(),
            strict=True,
        ):
            assert source in fetched, "activations are used that were not fetched"
            assert states.get(source) == name, "somebody else's activations are used"
            workspace[target - self.cache.resident * SIZE] = name

    def _attend(self, batch: Batch, workspace: Slots, window: int | None) -> None:
        """Each row of each segment finds the keys it sees."""
        for segment in batch.segments:
            one, end = segment.sequence, segment.first + segment.tokens
            seen = 0 if window is None else max(0, segment.first - window + 1)
            for position in range(seen, end):
                slot = one.blocks[position // SIZE] * SIZE + position % SIZE
                if slot < self.cache.resident * SIZE:
                    found = self._resident.get(slot)
                else:
                    found = workspace.get(slot - self.cache.resident * SIZE)
                assert found == one.tokens[position], f"key {position} is not there"

    def _store(
        self,
        context: BatchContext,
        names: list[int],
        workspace: Slots,
        host: Slots,
        window: int | None,
    ) -> None:
        runs, rows = context.stored(window)
        before, stored = dict(host), set()
        for first, end in runs.runs:
            for block in range(first, end):
                slots = range(block * SIZE, (block + 1) * SIZE)
                arrived = {slot: workspace[slot] for slot in slots if slot in workspace}
                news = [slot for slot, name in arrived.items() if before.get(slot) != name]
                assert news, "a block goes out that was stored already"
                host |= arrived
                stored |= set(slots)
        for row, slot in zip(rows.rows.tolist(), rows.slots.tolist(), strict=True):
            assert slot not in stored, "a row goes out twice"
            assert before.get(slot) != names[row], "a row goes out that was stored already"
            host[slot] = names[row]
            stored.add(slot)
        assert all(slot < self.cache.rooms.stored * SIZE for slot in stored)
        if window is None:
            self.stored_tokens += sum(before.get(slot) != name for slot, name in host.items())

    def _workspace_slot(self, one: Sequence, position: int) -> int:
        block = one.blocks[position // SIZE] - self.cache.resident
        return block * SIZE + position % SIZE

    def _new_names(self, count: int) -> list[int]:
        self._names += count
        return list(range(self._names - count, self._names))
