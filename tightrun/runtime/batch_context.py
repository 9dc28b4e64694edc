"""What of one batch's context lies off the device in one pass: what comes back, and what goes out.

Positions are tokens of a sequence, in order: shared with a resident one, replayed, projected from
stored activations, fetched as keys and values, and the new ones that this pass computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.sequence import Kept, Sequence

Numbers = npt.NDArray[np.int64]
EVERYTHING = 1 << 30


@dataclass(frozen=True, slots=True)
class Part:
    """One sequence's share of a batch.

    `context` tokens were computed in earlier passes, `new` are computed now, in the rows of the
    batch from `row` on. The tokens from `shared` to `replayed` are computed again, in the rows
    from `replay_row` on. `before` says in which form its blocks were held, `after` in which they
    are to be; `states` are the blocks of its activations as they were, by position.
    """

    sequence: Sequence
    context: int
    new: int
    row: int
    shared: int
    replayed: int
    replay_row: int
    before: Kept
    after: Kept
    states: dict[int, int]


def replay_end(context: int, size: int, before: Kept, after: Kept) -> int:
    """Up to which token a context has to be computed again: what is held as tokens, what is to be,
    and what is to become activations but is held as keys and values."""
    blocks = max(before.states_from, after.states_from)
    more = after.stored_from > max(before.stored_from, after.states_from)
    # Where the context ends before, only tokens still to come are held otherwise.
    if more and context > before.stored_from * size:
        blocks = max(blocks, after.stored_from)
    return min(context, blocks * size)


@dataclass(frozen=True, slots=True)
class Runs:
    """Blocks that are moved together: sorted numbers, cut into runs of neighbours [first, end)."""

    runs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, blocks: list[int]) -> Runs:
        if not blocks:
            return cls(())
        numbers = np.unique(np.asarray(blocks, dtype=np.int64))
        breaks = np.flatnonzero(np.diff(numbers) != 1)
        first = numbers[np.concatenate(([0], breaks + 1))]
        last = numbers[np.concatenate((breaks, [len(numbers) - 1]))]
        return cls(tuple(zip(first.tolist(), (last + 1).tolist(), strict=True)))

    @property
    def blocks(self) -> int:
        return sum(end - first for first, end in self.runs)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a batch and the slots (block * block_tokens + offset) they go to, one to one."""

    rows: Numbers
    slots: Numbers

    @property
    def count(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Projected:
    """Tokens whose keys and values are made again from stored activations.

    `states` are the blocks to fetch; token i is at `source[i]` of the states workspace and goes to
    slot `target[i]` of the KV workspace as packed; `ids` and `positions` are its own.
    """

    states: Runs
    source: Numbers
    target: Numbers
    ids: Numbers
    positions: Numbers


@dataclass(slots=True)
class BatchContext:
    """The lists of moves of one batch, by sliding window (None: the layer sees everything).

    `buffer` is the workspace the layer under way uses.
    """

    parts: list[Part]
    size: int
    resident: int
    staging_rows: int
    buffer: int = 0
    _fetched: dict[int | None, Runs] = field(default_factory=dict)
    _stored: dict[int | None, tuple[Runs, Rows]] = field(default_factory=dict)
    _projected: Projected | None = None
    _states_out: Rows | None = None

    @classmethod
    def of(cls, parts: list[Part], cache: KVCache, staging_rows: int) -> BatchContext:
        return cls(parts, cache.block_tokens, cache.resident, staging_rows)

    @property
    def offloaded_tokens(self) -> int:
        """Context tokens off the device."""
        return sum(max(0, p.context - p.shared) for p in self.parts)

    @property
    def replayed_tokens(self) -> int:
        return sum(max(0, p.replayed - p.shared) for p in self.parts)

    @property
    def projected_tokens(self) -> int:
        return len(self.projected.source)

    def fetched(self, window: int | None) -> Runs:
        """Workspace blocks that come from the host before a layer of that window."""
        if window not in self._fetched:
            found: list[int] = []
            for part in self.parts:
                first = max(-(-part.replayed // self.size), part.before.stored_from)
                first = max(first, self._seen_from(part.context + 1, window))
                found += self._numbers(part, first, -(-part.context // self.size))
            self._fetched[window] = Runs.of(found)
        return self._fetched[window]

    def stored(self, window: int | None) -> tuple[Runs, Rows]:
        """What goes out behind a layer: whole workspace blocks, and single rows of the batch."""
        if window not in self._stored:
            self._stored[window] = self._store(window)
        return self._stored[window]

    @property
    def projected(self) -> Projected:
        if self._projected is None:
            self._projected = self._project()
        return self._projected

    @property
    def states_out(self) -> Rows:
        """Rows of the batch whose activations go out, and their slots in the states' blocks."""
        if self._states_out is None:
            self._states_out = self._find_states_out()
        return self._states_out

    def _seen_from(self, position: int, window: int | None) -> int:
        """The first block a token at `position - 1` or later can see."""
        return 0 if window is None else max(0, position - window) // self.size

    def _numbers(self, part: Part, first: int, end: int) -> list[int]:
        return [b - self.resident for b in part.sequence.blocks[first:end]] if first < end else []

    def _store(self, window: int | None) -> tuple[Runs, Rows]:
        blocks: list[int] = []
        rows: list[Numbers] = []
        slots: list[Numbers] = []
        room = self.staging_rows
        for part in self.parts:
            total = part.context + part.new
            seen = self._seen_from(total + 1, window)
            after = max(part.after.stored_from, seen)
            held = min(part.before.stored_from, -(-part.context // self.size))
            blocks += self._numbers(part, after, held)
            # A block that goes out whole takes the new tokens in it along.
            first = max(part.context, max(after, held) * self.size)
            if first >= total:
                continue
            if part.new < self.size and total - first <= room:
                room -= total - first
                positions = np.arange(first, total)
                rows.append(positions - part.context + part.row)
                slots.append(self._slots(part, positions) - self.resident * self.size)
            else:
                blocks += self._numbers(part, first // self.size, -(-total // self.size))
        return Runs.of(blocks), Rows(_join(rows), _join(slots))

    def _slots(self, part: Part, positions: Numbers) -> Numbers:
        blocks = np.asarray(part.sequence.blocks, dtype=np.int64)
        slots: Numbers = blocks[positions // self.size] * self.size + positions % self.size
        return slots

    def _project(self) -> Projected:
        states: list[int] = []
        source: list[Numbers] = []
        target: list[Numbers] = []
        ids: list[Numbers] = []
        where: list[Numbers] = []
        for part in self.parts:
            first = max(part.replayed, part.before.states_from * self.size)
            end = min(part.context, part.before.stored_from * self.size)
            if first >= end:
                continue
            positions = np.arange(first, end)
            numbers = [part.states[p] for p in range(first // self.size, -(-end // self.size))]
            states += numbers
            held = np.asarray(numbers, dtype=np.int64)
            held = held[positions // self.size - first // self.size]
            source.append(held * self.size + positions % self.size)
            target.append(self._slots(part, positions))
            ids.append(np.asarray(part.sequence.tokens[first:end], dtype=np.int64))
            where.append(positions)
        return Projected(Runs.of(states), _join(source), _join(target), _join(ids), _join(where))

    def _find_states_out(self) -> Rows:
        rows: list[Numbers] = []
        slots: list[Numbers] = []
        for part in self.parts:
            for first, end in self._states_ranges(part):
                positions = np.arange(first, end)
                new = positions >= part.context
                at = np.where(
                    new,
                    positions - part.context + part.row,
                    positions - part.shared + part.replay_row,
                )
                numbers = part.sequence.states
                held = np.array(
                    [numbers[p] for p in range(first // self.size, -(-end // self.size))]
                )
                held = held[positions // self.size - first // self.size]
                rows.append(at)
                slots.append(held * self.size + positions % self.size)
        return Rows(_join(rows), _join(slots))

    def _states_ranges(self, part: Part) -> list[tuple[int, int]]:
        """Tokens that are to be activations and are not yet: replayed or new."""
        size, total = self.size, part.context + part.new
        wanted = (part.after.states_from * size, min(part.after.stored_from * size, total))
        had = (part.before.states_from * size, min(part.before.stored_from * size, part.context))
        if had[0] >= had[1]:
            ranges = [wanted]
        else:
            ranges = [(wanted[0], min(wanted[1], had[0])), (max(wanted[0], had[1]), wanted[1])]
        return [(first, end) for first, end in ranges if first < end]


def _join(arrays: list[Numbers]) -> Numbers:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)
