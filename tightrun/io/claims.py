"""Which run works on which shard, when several share a job; nobody coordinates them.

A claim stands in the record of the run that has it, so it ends with its run, however that ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from tightrun.io.lock import LiveRun, RunLock


class Claims:
    """The claims of one run on the shards `range(shards)`; `sealed` tells which are done by now."""

    def __init__(self, lock: RunLock, shards: int, sealed: Callable[[], Set[int]]) -> None:
        self._lock = lock
        self._shards = shards
        self._sealed = sealed
        self._last = -1
        self.elsewhere: frozenset[int] = frozenset()
        self.live: frozenset[int] = frozenset()

    def next(self) -> int | None:
        """One more shard for this run; None while no free one is left.

        Afterwards `elsewhere` are those that other runs are at work on, and `live` the numbers of
        the runs that live. Raises LostError if others have taken this run for dead.
        """
        shard = self._lock.claim(self._choose)
        if shard is not None:
            self._last = shard
        return shard

    def _choose(self, others: list[LiveRun]) -> int | None:
        self.live = frozenset(run.run for run in others)
        theirs = frozenset(shard for run in others for shard in run.claims)
        done = self._sealed()
        self.elsewhere = theirs - done
        mine = self._lock.record.claims
        taken = {*theirs, *done, *mine}
        free = [shard for shard in range(self._shards) if shard not in taken]
        return choose(free, self._last, alone=not others)


def choose(free: Sequence[int], last: int, *, alone: bool) -> int | None:
    """The best of the ascending `free` shards for a run whose latest one is `last`.

    The one behind it, because the input is read on from there; else the middle of the longest gap,
    so that whoever comes from before it may go on for long, or its first one if nobody does.
    """
    if last + 1 in free:
        return last + 1
    gap = _longest_gap(free)
    if not gap:
        return None
    return gap[0] if alone else gap[len(gap) // 2]


def _longest_gap(free: Sequence[int]) -> range:
    longest, start = range(0), 0
    for place, shard in enumerate(free):
        if place and shard != free[place - 1] + 1:
            start = place
        if place + 1 - start > len(longest):
            longest = range(free[start], shard + 1)
    return longest
