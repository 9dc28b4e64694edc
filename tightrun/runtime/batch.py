"""Sequences computed together through a layer: packed, ragged, without padding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from tightrun.policies.cost import PassWork
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.sequence import Sequence

if TYPE_CHECKING:
    from tightrun.runtime.batch_context import BatchContext


@dataclass(frozen=True, slots=True)
class Segment:
    """The next `tokens` uncomputed tokens of one sequence, as they take part in a batch.

    With `replay_from` they are `tokens` computed ones from there on, which are computed again
    because only the tokens themselves were kept of them.
    """

    sequence: Sequence
    tokens: int
    replay_from: int | None = None

    @property
    def first(self) -> int:
        """The position of its first token, which is also how many keys come before it."""
        return self.sequence.computed if self.replay_from is None else self.replay_from

    @property
    def reaches_end(self) -> bool:
        """Whether the logits of its last token are wanted: it ends what is known."""
        return self.replay_from is None and self.tokens == self.sequence.uncomputed


@dataclass(slots=True)
class Batch:
    """The packed tokens of some segments, and the index arrays that attention needs.

    input_ids, positions `[1, tokens]` int64; slots `[tokens]` int64, the place of each token in
    the cache as block * block_tokens + offset (-1: not stored); query_start, query_len and
    context_len `[segments]` int32; block_table `[segments, blocks]` int32; logit_rows `[n]` int64.
    `padding` rows at the end belong to no sequence (see `rope_sides`). The index arrays live on
    the host; `on_device` copies are made once by the attention that needs them.

    Slots and tables with `workspace` blocks in them point to other places for every layer and
    buffer: `point` sets them. `context` is what of the batch lies off the device. `index` is its
    place in the pass.
    """

    segments: list[Segment]
    input_ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    query_start: torch.Tensor
    query_len: torch.Tensor
    context_len: torch.Tensor
    block_table: torch.Tensor
    logit_rows: torch.Tensor
    logit_sequences: list[Sequence]
    padding: int = 0
    cache: KVCache | None = None
    lane: int = 0
    index: int = 0
    context: BatchContext | None = None
    hidden: torch.Tensor | None = None
    layer_calls: list[tuple[tuple[object, ...], dict[str, object]]] = field(default_factory=list)
    on_device: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return self.input_ids.shape[1]

    def point(self, layer: int, buffer: int) -> None:
        """Let slots and tables mean this layer's blocks and, off the device, that buffer's."""
        if self.context is None:
            return
        assert self.cache is not None
        shift, size = self.cache.shift(layer, buffer), self.cache.block_tokens
        for name in ("slots", "block_table"):
            raw, moving = self._numbers(name)
            step = shift * size if name == "slots" else shift
            pointed = (raw + moving * step).to(raw.dtype)
            if self.input_ids.device.type == "cpu":
                setattr(self, name, pointed)
                self.on_device.pop(name, None)
            else:
                self.on_device[name] = pointed
        for name in ("pages", "key blocks", "slot blocks", "slot offsets"):
            self.on_device.pop(name, None)

    def _numbers(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Slots or table as packed, and which of them are in the workspace; on the device."""
        assert self.cache is not None
        key = f"packed {name}"
        if key not in self.on_device:
            raw = getattr(self, name).to(self.input_ids.device, non_blocking=True)
            if raw.device.type != "cpu":
                raw = raw.long()
            border = self.cache.resident * (self.cache.block_tokens if name == "slots" else 1)
            self.on_device[key] = raw
            self.on_device[f"moving {name}"] = (raw >= border).to(raw.dtype)
        return self.on_device[key], self.on_device[f"moving {name}"]

    def work(self) -> PassWork:
        """Counts of what this batch computes, for the cost model."""
        length = self.query_len.to(torch.int64)
        context = self.context_len.to(torch.int64)
        attended = int((length * context + length * (length + 1) // 2).sum())
        return PassWork(
            tokens=self.tokens,
            logit_rows=len(self.logit_sequences),
            attended=attended,
            context_tokens=int((context + length).sum()),
        )


def pack(
    segments: list[Segment],
    cache: KVCache,
    device: torch.device,
    *,
    pad_position: int | None = None,
) -> Batch:
    """Pack segments into a batch; their sequences' blocks must already hold the new tokens.

    `pad_position` adds one row at that position which is stored nowhere and attends to nothing.
    """
    assert segments, "a batch has at least one segment"
    lengths = np.array([s.tokens for s in segments], dtype=np.int32)
    starts = np.zeros(len(segments), dtype=np.int32)
    np.cumsum(lengths[:-1], out=starts[1:])
    context = np.array([s.first for s in segments], dtype=np.int32)
    total = int(lengths.sum())

    owner = np.repeat(np.arange(len(segments)), lengths)
    positions = np.arange(total, dtype=np.int64) - starts[owner] + context[owner]
    places = np.array([s.sequence.place for s in segments])
    size = cache.block_tokens
    blocks = cache.tables[places[owner], positions // size].astype(np.int64)
    slots = blocks * size + positions % size
    ids = np.concatenate(
        [s.sequence.tokens[s.first : s.first + s.tokens] for s in segments]
    ).astype(np.int64)
    if pad_position is not None:
        ids = np.append(ids, ids[-1])
        positions = np.append(positions, pad_position)
        slots = np.append(slots, -1)

    widest = int(-(-(context + lengths).max() // size))
    ends = [i for i, s in enumerate(segments) if s.reaches_end]
    rows = (starts + lengths - 1)[ends].astype(np.int64)
    return Batch(
        segments=segments,
        input_ids=torch.from_numpy(ids)[None].to(device, non_blocking=True),
        positions=torch.from_numpy(positions)[None].to(device, non_blocking=True),
        slots=torch.from_numpy(slots),
        query_start=torch.from_numpy(starts),
        query_len=torch.from_numpy(lengths),
        context_len=torch.from_numpy(context),
        block_table=torch.from_numpy(np.ascontiguousarray(cache.tables[places, :widest])),
        logit_rows=torch.from_numpy(rows).to(device, non_blocking=True),
        logit_sequences=[segments[i].sequence for i in ends],
        padding=0 if pad_position is None else 1,
        cache=cache,
        lane=segments[0].sequence.lane,
    )
