"""Sequences computed together through a layer: packed, ragged, without padding."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from tightrun.policies.cost import PassWork
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Segment:
    """The next `tokens` uncomputed tokens of one sequence, as they take part in a batch."""

    sequence: Sequence
    tokens: int

    @property
    def reaches_end(self) -> bool:
        """Whether the logits of its last token are wanted: it ends what is known."""
        return self.tokens == self.sequence.uncomputed


@dataclass(slots=True)
class Batch:
    """The packed tokens of some segments, and the index arrays that attention needs.

    input_ids, positions `[1, tokens]` int64; slots `[tokens]` int64, the place of each token in
    the cache as block * block_tokens + offset (-1: not stored); query_start, query_len and
    context_len `[segments]` int32; block_table `[segments, blocks]` int32; logit_rows `[n]` int64.
    `padding` rows at the end belong to no sequence (see `rope_sides`). The index arrays live on
    the host; `to_device` copies are made once by the attention that needs them.
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
    stage: int = -1
    hidden: torch.Tensor | None = None
    layer_calls: list[tuple[tuple[object, ...], dict[str, object]]] = field(default_factory=list)
    on_device: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return self.input_ids.shape[1]

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
    context = np.array([s.sequence.computed for s in segments], dtype=np.int32)
    total = int(lengths.sum())

    owner = np.repeat(np.arange(len(segments)), lengths)
    positions = np.arange(total, dtype=np.int64) - starts[owner] + context[owner]
    places = np.array([s.sequence.place for s in segments])
    size = cache.block_tokens
    blocks = cache.tables[places[owner], positions // size].astype(np.int64)
    slots = blocks * size + positions % size
    ids = np.concatenate(
        [s.sequence.tokens[s.sequence.computed : s.sequence.computed + s.tokens] for s in segments]
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
    )
