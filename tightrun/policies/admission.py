"""Who starts: decided from free KV blocks and from how long outputs have turned out so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tightrun.policies.output_shares import Learnt, ShareCurve, bin_of

# More than the outputs so far: rows that turn out longer cost preemption.
CAUTION = 1.25
# Sequences that must have finished before anything is believed of the others.
LEAST_FINISHED = 32
# What an earlier run has learnt counts as so many sequences at the most.
MOST_REMEMBERED = 256
# The share of all outputs whose ends must be seen before anyone is told how long they are.
MOSTLY = 0.75
# The curve is drawn anew when so many times as many sequences have finished.
REDRAWN = 1.1


@dataclass(slots=True)
class OutputLengths:
    """Learns what share of its `max_tokens` a sequence really writes.

    Starts from `planned` tokens, or from the worst case where nothing was planned, and follows the
    finished ones, so that a job whose rows all stop early soon runs more of them together.
    Preemption pays for the error. Those that still run are counted as longer than they are now:
    who finishes first is short.
    """

    planned: int | None = None
    caution: float = field(default=CAUTION)
    learnt: Learnt = field(default_factory=Learnt)
    remembered: Learnt = field(default_factory=Learnt)
    _curve: ShareCurve | None = None
    _redraw_at: float = LEAST_FINISHED

    @property
    def finished(self) -> int:
        """Sequences that have finished in this run."""
        return self.learnt.finished

    @property
    def known(self) -> Learnt:
        """What is known of the outputs of this job, with what was remembered."""
        return self.learnt.plus(self.remembered)

    def remember(self, earlier: Learnt) -> None:
        """Begin with what an earlier run of the same job has learnt."""
        self.remembered = earlier.scaled(MOST_REMEMBERED)
        if self.stale:
            self.draw(())

    def learn(self, tokens: int, max_tokens: int) -> None:
        """A sequence that was allowed `max_tokens` has ended after `tokens`."""
        self.learnt.add(tokens, max_tokens)

    @property
    def stale(self) -> bool:
        """Whether enough has been learnt for `draw` to be called."""
        return self._count >= self._redraw_at

    def draw(self, running: Iterable[tuple[int, int]]) -> None:
        """Believe what was learnt; `running` are written and allowed tokens of the others."""
        self._curve = ShareCurve.of(self.known, running)
        self._redraw_at = max(self._count + 1, self._count * REDRAWN)

    def expected(self, max_tokens: int, written: int = 0) -> int:
        """Output tokens to reckon with, in all, for a sequence that may write `max_tokens` and has
        `written` some: with caution."""
        more = self.caution * (self._mean(max_tokens, written) - written)
        return max(1, min(max_tokens, round(written + more)))

    def remaining(self, max_tokens: int, written: int = 0) -> float:
        """Output tokens that such a sequence will still write in the mean."""
        return max(0.0, self._mean(max_tokens, written) - written)

    @property
    def are_seen(self) -> bool:
        """Whether most outputs end where others were seen to end."""
        return self._curve is not None and self._curve.seen >= MOSTLY

    @property
    def mean_tokens(self) -> float:
        """Output tokens of a mean sequence, those that still run foreseen; 0.0 if not known."""
        known = self.known
        if self._curve is None or not known.finished:
            return 0.0
        return self._curve.mean(0) * known.allowed / known.finished

    @property
    def _count(self) -> float:
        return self.learnt.finished + self.remembered.finished

    def _mean(self, max_tokens: int, written: int) -> float:
        if self._curve is not None:
            return self._curve.mean(bin_of(written, max_tokens)) * max_tokens
        if self.planned is None:
            return max_tokens
        return max(min(self.planned, max_tokens), written)


def may_start(free_blocks: int, promised_blocks: int, wanted_blocks: int, running: int) -> bool:
    """Whether a sequence expected to grow to `wanted_blocks` may start now.

    `promised_blocks` is what the running sequences are still expected to take. The first one
    always starts: the plan made sure that a single sequence fits.
    """
    return running == 0 or wanted_blocks <= free_blocks - promised_blocks
