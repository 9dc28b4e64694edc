"""Splits of the batches' contexts in whole KV blocks, and the search for the best of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise

from tightrun.policies.loads import PassLoad

Split = tuple[int, ...]  # recomputed tokens per batch
# Halvings of a share between 0 and 1; 2^-40 of any context is less than a block.
HALVINGS = 40


class Splits:
    """Recomputed tokens per batch, in whole blocks or all there are.

    A batch's rows and its recomputed tokens together are at most `most_rows` (0: no end).
    """

    def __init__(self, block_tokens: int, most_rows: int) -> None:
        self.block_tokens = block_tokens
        self.most_rows = most_rows

    def at_ratio(self, load: PassLoad, ratio: float) -> Split:
        """Every batch as near to the ratio as blocks and rows allow."""
        wanted = (round(ratio * b.offloaded_tokens / self.block_tokens) for b in load.batches)
        if ratio == 1:
            wanted = (self._blocks(b.offloaded_tokens) for b in load.batches)
        return self._tokens(load, tuple(map(min, wanted, self._most(load))))

    def at_share(self, load: PassLoad, share: float) -> Split:
        """All batches together as near to the share as blocks and rows allow."""
        return self._sharing(load)(share)

    def meeting(
        self,
        load: PassLoad,
        rising_s: Callable[[Split], float],
        falling_s: Callable[[Split], float],
    ) -> Split:
        """The split whose slower time is least.

        `rising_s` grows with what is recomputed, `falling_s` falls. Every batch has about the same
        share; of equally fast splits, the one with the least recomputed is taken.
        """
        split = self._sharing(load)

        def first(reached: Callable[[Split], bool]) -> tuple[Split, Split]:
            """The last split before `reached` turns true, and the first after."""
            low, high = 0.0, 1.0
            before, after = split(low), split(high)
            if reached(before):
                return before, before
            for _ in range(HALVINGS):
                if sum(after) - sum(before) <= self.block_tokens:
                    break
                middle = (low + high) / 2
                tried = split(middle)
                if reached(tried):
                    high, after = middle, tried
                else:
                    low, before = middle, tried
            return before, after

        before, after = first(lambda tried: rising_s(tried) >= falling_s(tried))
        best = min(before, after, key=lambda tried: max(rising_s(tried), falling_s(tried)))
        least_s = max(rising_s(best), falling_s(best))
        fewer = (max(0, max(best) - self.block_tokens), *sorted(best, reverse=True)[1:])
        if not sum(best) or falling_s(fewer) > least_s:
            return best
        # Something that recomputing does not shorten is the slowest: less of it does as well.
        return first(lambda tried: falling_s(tried) <= least_s)[1]

    def towards(self, load: PassLoad, wanted: Split, most_tokens: float) -> Split:
        """From the present split in the direction of the wanted sum, `most_tokens` at the most.

        No batch goes the other way, and one that does not move keeps exactly what it has.
        """
        present = load.present
        ahead = 1 if sum(wanted) > sum(present) else -1
        room = [
            max(0, ahead * (self._blocks(w) - self._blocks(p)))
            for w, p in zip(wanted, present, strict=True)
        ]
        total = sum(room)
        moved = min(total, abs(sum(wanted) - sum(present)) // self.block_tokens)
        moved = min(moved, int(most_tokens // self.block_tokens))
        if not moved:
            return present
        ends = [(moved * x + total // 2) // total for x in (0, *accumulate(room))]
        steps = [end - start for start, end in pairwise(ends)]
        blocks = [self._blocks(p) + ahead * s for p, s in zip(present, steps, strict=True)]
        tokens = self._tokens(load, tuple(blocks))
        return tuple(t if s else p for t, s, p in zip(tokens, steps, present, strict=True))

    def _sharing(self, load: PassLoad) -> Callable[[float], Split]:
        """Splits by share; equal batches take their next block one after the other."""
        blocks = [self._blocks(b.offloaded_tokens) for b in load.batches]
        most, count = self._most(load), len(load.batches)

        def split(share: float) -> Split:
            shared = (int(share * n + (i + 0.5) / count) for i, n in enumerate(blocks))
            return self._tokens(load, tuple(map(min, shared, most)))

        return split

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)

    def _most(self, load: PassLoad) -> tuple[int, ...]:
        """Blocks that each batch could recompute at most."""
        most = [self._blocks(b.offloaded_tokens) for b in load.batches]
        if self.most_rows:
            rows = [max(0, self.most_rows - b.rows) for b in load.batches]
            return tuple(
                m if r >= b.offloaded_tokens else min(m, r // self.block_tokens)
                for m, r, b in zip(most, rows, load.batches, strict=True)
            )
        return tuple(most)

    def _tokens(self, load: PassLoad, blocks: tuple[int, ...]) -> Split:
        size = self.block_tokens
        return tuple(
            min(count * size, b.offloaded_tokens)
            for count, b in zip(blocks, load.batches, strict=True)
        )
