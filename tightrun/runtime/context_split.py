"""Gives the distributor's decision to sequences: which of them are held in the recompute form.

Whole sequences in the order in which they started, and at most one that is split: what moves
together stays together, and host memory is freed in whole contexts.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrun.policies.kv import Form
from tightrun.runtime.batch import Segment
from tightrun.runtime.batch_context import EVERYTHING, Part, replay_end
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.sequence import Kept, Sequence

# A context that is kept as keys and values is computed again to be kept as activations only for
# a sequence that may write so many tokens more.
WORTH_A_REPLAY = 32


@dataclass(frozen=True, slots=True)
class SplitBatch:
    """A batch's segments, those of replayed tokens behind them, and its parts off the device."""

    segments: list[Segment]
    parts: list[Part]


class ContextSplit:
    """Turns a number of tokens to recompute into boundaries of the sequences of a batch."""

    def __init__(self, cache: KVCache, form: Form, most_rows: int) -> None:
        self._cache, self._form = cache, form
        self._most_rows = self._planned_rows = most_rows
        self._held = False

    def hold(self, rows: int) -> None:
        """Batches have at most so many rows from now on, those computed again included."""
        self._most_rows = min(rows, self._planned_rows or rows)
        self._held = rows < self._planned_rows

    def held(self, segments: list[Segment]) -> int:
        """Context tokens of the batch that are in the recompute form now."""
        return sum(self._recomputed(s.sequence, s.sequence.computed) for s in _offloaded(segments))

    def split(self, segments: list[Segment], recomputed: float, ratio: float) -> SplitBatch:
        """Apply the decision to a batch: `recomputed` tokens of its context, and that share of
        what is not computed of it yet."""
        offloaded = _offloaded(segments)
        before = {id(s.sequence): (s.sequence.kept, dict(s.sequence.states)) for s in offloaded}
        # All of a prompt is decided when its first chunk is computed.
        budget = recomputed + ratio * sum(s.sequence.uncomputed for s in offloaded)
        if self._form == "tokens":
            self._share_tokens(offloaded, budget, sum(s.tokens for s in segments), len(segments))
        elif self._form == "activations":
            self._share_states(offloaded, budget)
        row = sum(s.tokens for s in segments)
        replays: list[Segment] = []
        parts: list[Part] = []
        at = 0
        for segment in segments:
            sequence = segment.sequence
            if sequence.offloaded:
                kept, states = before[id(sequence)]
                shared = sequence.shared * self._cache.block_tokens
                end = replay_end(sequence.computed, self._cache.block_tokens, kept, sequence.kept)
                parts.append(
                    Part(
                        sequence=sequence,
                        context=sequence.computed,
                        new=segment.tokens,
                        row=at,
                        shared=shared,
                        replayed=max(end, shared),
                        replay_row=row,
                        before=kept,
                        after=sequence.kept,
                        states=states,
                    )
                )
                if end > shared:
                    replays.append(Segment(sequence, end - shared, replay_from=shared))
                    row += end - shared
            at += segment.tokens
        return SplitBatch(segments + replays, parts)

    def _recomputed(self, sequence: Sequence, tokens: int) -> int:
        """Of the first `tokens` tokens, those that are not held as keys and values."""
        size = self._cache.block_tokens
        return max(0, min(tokens, sequence.kept.stored_from * size) - sequence.shared * size)

    def _share_tokens(
        self, segments: list[Segment], budget: float, rows: int, sequences: int
    ) -> None:
        """The first sequences as tokens, the rest as keys and values.

        What is kept as tokens is replayed beside the rows of this pass as far as it is computed,
        and beside a row of each sequence from the next one on: a batch has room for either.
        """
        size = self._cache.block_tokens
        if self._held:
            budget = min(budget, self._most_rows - sum(s.tokens for s in segments))
        present = [self._recomputed(s.sequence, s.sequence.computed) for s in segments]
        most = self._most_rows or EVERYTHING
        room = max(0, most - rows - sum(present))
        later = max(0, most - sequences)
        for segment, now in zip(segments, present, strict=True):
            sequence = segment.sequence
            shared = sequence.shared
            length = len(sequence.tokens) - shared * size
            computed = sequence.computed - shared * size
            end = shared + _blocks(budget, length, size)
            if min(length, (end - shared) * size) > later:
                end = shared + later // size
            if min(computed, (end - shared) * size) > now + room:
                end = shared + (now + room) // size
            kept = min(length, (end - shared) * size)
            budget -= length if end >= EVERYTHING else (end - shared) * size
            later = max(0, later - kept)
            room -= max(0, min(computed, kept) - now)
            self._keep(sequence, Kept(end, end))

    def _share_states(self, segments: list[Segment], budget: float) -> None:
        """The sequences that are held as activations already, then those that begin, then one
        that is held as keys and values and is computed again for it, as far as the budget goes."""
        size = self._cache.block_tokens
        replays = self._most_rows - sum(s.tokens for s in segments)

        def rank(segment: Segment) -> int:
            sequence = segment.sequence
            if self._recomputed(sequence, sequence.computed):
                return 0
            return 1 if sequence.computed <= sequence.shared * size else 2

        for segment in sorted(segments, key=rank):
            sequence = segment.sequence
            length = len(sequence.tokens) - sequence.shared * size
            end = sequence.shared + _blocks(budget, length, size)
            now = sequence.kept.stored_from
            held = min(now, self._cache.blocks_for(sequence.computed))
            if end > now and sequence.computed > held * size:
                # More activations of what is held as keys and values: only whole, only one.
                left = sequence.room - sequence.output_tokens
                if end < EVERYTHING or sequence.computed > replays or left < WORTH_A_REPLAY:
                    end = now
                else:
                    replays = 0
            taken = min(end, self._cache.blocks_for(length) + sequence.shared) - sequence.shared
            budget -= min(taken * size, length)
            self._keep(sequence, Kept(sequence.shared, end))

    def _keep(self, sequence: Sequence, kept: Kept) -> None:
        if kept != sequence.kept and self._cache.can_keep(sequence, kept):
            self._cache.keep(sequence, kept)


def _blocks(budget: float, length: int, size: int) -> int:
    """Blocks of a sequence the budget pays for; all it will ever have if it pays for all but half
    a block, so that a growing sequence stays whole."""
    if budget >= length - min(size, length) / 2:
        return EVERYTHING
    return max(0, round(budget / size))


def _offloaded(segments: list[Segment]) -> list[Segment]:
    return [s for s in segments if s.sequence.offloaded]
