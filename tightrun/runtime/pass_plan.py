"""Puts a pass together: what its batches have off the device, and what of it is recomputed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tightrun.policies.kv import BatchLoad, Decision, Distributor, PassLoad
from tightrun.policies.shape import ModelShape
from tightrun.runtime.batch import Batch, Segment, pack
from tightrun.runtime.batch_context import BatchContext
from tightrun.runtime.context_split import ContextSplit
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.rope_sides import RopeSides

# Slices a little larger than what the link can carry: a batch that computes longer than foreseen
# then leaves no gap on the link (on threads, 1.25 times lost least).
AHEAD = 1.2


@dataclass(frozen=True, slots=True)
class PlannedPass:
    """The batches of a pass as they are computed, the load they were decided for, the decision.

    `left` are the context tokens that each batch has in the recompute form behind it.
    """

    batches: list[Batch]
    load: PassLoad
    decision: Decision
    left: tuple[int, ...]
    offloaded_tokens: int
    recomputed_tokens: int


@dataclass(frozen=True, slots=True)
class WeightTraffic:
    """Bytes of weights that a pass brings in over the link, and from the disk."""

    link_bytes: int = 0
    disk_bytes: int = 0


class PassPlanner:
    """Decides each pass before it is computed."""

    def __init__(
        self,
        shape: ModelShape,
        cache: KVCache,
        distributor: Distributor,
        split: ContextSplit,
        sides: RopeSides,
        device: torch.device,
        weights: WeightTraffic,
        staging_rows: int,
    ) -> None:
        self._shape, self._cache, self._sides, self._device = shape, cache, sides, device
        self._distributor, self._split = distributor, split
        self._weights, self._staging_rows = weights, staging_rows

    def plan(self, block: list[list[Segment]]) -> PlannedPass:
        """The batches of the scheduler's block, with tokens to be replayed behind its own."""
        shares = [_kept_share(self._shape, segments) for segments in block]
        load = PassLoad(
            tuple(self._load(s, share) for s, share in zip(block, shares, strict=True)),
            self._weights.link_bytes,
            self._weights.disk_bytes,
        )
        decision = self._distributor.decide(load)
        batches: list[Batch] = []
        for index, segments in enumerate(block):
            wanted = max(decision.recomputed[index], decision.wanted[index])
            split = self._split.split(segments, wanted / shares[index], decision.ratio)
            batch = pack(
                split.segments,
                self._cache,
                self._device,
                pad_position=self._sides.pad_position(segments[0].sequence.rope_side),
            )
            batch.index = index
            if split.parts:
                batch.context = BatchContext.of(split.parts, self._cache, self._staging_rows)
            batches.append(batch)
        contexts = [b.context for b in batches if b.context is not None]
        left = tuple(
            round(share * self._split.held(s)) for s, share in zip(block, shares, strict=True)
        )
        return PlannedPass(
            batches,
            load,
            decision,
            left,
            sum(c.offloaded_tokens for c in contexts),
            sum(c.replayed_tokens + c.projected_tokens for c in contexts),
        )

    def hold(self, rows: int) -> None:
        """Batches have at most so many rows from now on, those computed again included."""
        self._distributor.hold(rows)
        self._split.hold(rows)

    def rooms(self, planned: PlannedPass) -> tuple[list[int], list[int]]:
        """Bytes of weights that can arrive while each batch computes a layer, and the head."""
        times, load = self._distributor.times, planned.load
        count = len(planned.batches)
        rate = times.rates.h2d_bytes_per_s or times.rates.disk_bytes_per_s
        if not rate:
            return [0] * count, [0] * count
        predicted = planned.decision.predicted
        heads = [times.head_s(batch) for batch in load.batches]
        weights_s = self._weights.link_bytes / rate
        kv_s = max(0.0, predicted.link_in_s - weights_s)
        free_s = (predicted.compute_s - sum(heads) - kv_s) / (len(self._shape.layers) * count)
        room = max(0, int(AHEAD * rate * free_s))
        return [room] * count, [int(AHEAD * rate * seconds) for seconds in heads]

    def _load(self, segments: list[Segment], share: float) -> BatchLoad:
        off = [s for s in segments if s.sequence.offloaded]
        size = self._cache.block_tokens
        tokens = [s.sequence.computed - s.sequence.shared * size for s in off]
        rows = sum(s.tokens for s in segments)
        return BatchLoad(
            rows=rows,
            logit_rows=sum(s.reaches_end for s in segments),
            attended=sum(
                s.tokens * s.sequence.computed + s.tokens * (s.tokens + 1) // 2 for s in segments
            ),
            offloaded_tokens=round(share * sum(tokens)),
            recomputed_tokens=round(share * self._split.held(segments)),
            written_tokens=sum(s.tokens for s in off),
            offloaded_sequences=sum(n > 0 for n in tokens),
            context_tokens=sum(s.sequence.computed + s.tokens for s in segments),
        )


def _kept_share(shape: ModelShape, segments: list[Segment]) -> float:
    """The share of the layers' bytes that sliding windows leave of the contexts; 1 without any."""
    windows = [x.window for x in shape.layers]
    if not any(windows):
        return 1.0
    lengths = [s.sequence.computed for s in segments if s.sequence.offloaded]
    total = sum(lengths) * len(windows)
    if not total:
        return 1.0
    kept = sum(n if w is None else min(n, w) for n in lengths for w in windows)
    return kept / total
