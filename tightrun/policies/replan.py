"""Other sizes for a run whose rates or lengths turn out otherwise than planned.

Only what needs no other memory is changed: how many sequences a batch has, how many batches a
pass, how many prefill tokens a batch takes, none of them beyond the plan. When work happens
changes by that, never what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tightrun.policies.corrections import Corrections
from tightrun.policies.foresight import Foresight, Sizes, corrected_rates

# Another choice must be faster by this share, and one that was left before by twice as much.
LEAST_GAIN = 0.05
# Times in a row that the same choice must be the best.
PATIENCE = 3
# Passes between two looks; before the first one, and after a change, which doubles it each time.
EVERY, AT_FIRST = 16, 32
# Rates and lengths that moved by less since the last look promise nothing new.
MOVED = math.log(1.1)
# With fewer sequences left than this many times the places, there is nothing left to gain.
LEAST_ROUNDS = 2
# Passes of fewer prefill tokens are never worth it.
LEAST_PREFILL = 16

_FACTORS = {
    "compute": "computing takes",
    "prefill": "computing prompts takes",
    "h2d": "the link to the device takes",
    "d2h": "the link from the device takes",
    "disk": "the disk takes",
    "output": "outputs are",
    "prompt": "prompts are",
}


@dataclass(frozen=True, slots=True)
class Learned:
    """What a run knows of itself: mean tokens of prompts and outputs (0.0 while unknown), and how
    many sequences have not started yet (None: not known)."""

    corrections: Corrections
    prompt: float
    output: float
    left: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """Other sizes from the next pass on, how much faster they are by the cost model, and why."""

    before: Sizes
    after: Sizes
    gain: float
    text: str


class Replanner:
    """Looks every now and then whether the sizes of a run are still the best of their neighbours.

    Follows TightLLM's finding that undamped feedback swings: a change needs patience, the next one
    twice as much time, and the way back twice the gain.
    """

    def __init__(self, foresight: Foresight) -> None:
        self.sizes = foresight.sizes
        self._foresight = foresight
        self._left_before = {self.sizes}
        self._look_at, self._pause = AT_FIRST, AT_FIRST
        self._seen: dict[str, float] = {}
        self._candidate: Sizes | None = None
        self._in_a_row = 0

    def is_due(self, passes: int) -> bool:
        """Whether a look is worth it after so many passes."""
        return passes >= self._look_at

    def look(self, passes: int, learned: Learned) -> Change | None:
        """A change that has proved to be better; None while there is none."""
        self._look_at = passes + EVERY
        places = self.sizes.sequences
        if learned.left is not None and learned.left < LEAST_ROUNDS * places:
            return None
        off = self._off(learned)
        moved = max((abs(math.log(x / self._seen.get(name, 1.0))) for name, x in off.items()))
        if moved < MOVED and not self._in_a_row:
            return None
        self._seen = off
        best, gain = self._best(learned)
        self._in_a_row = self._in_a_row + 1 if best == self._candidate else 1
        self._candidate = best
        if best is None:
            self._in_a_row = 0
        if best is None or self._in_a_row < PATIENCE:
            return None
        change = Change(self.sizes, best, gain, _sentence(self.sizes, best, gain, off))
        self._left_before.add(self.sizes)
        self.sizes = best
        self._candidate, self._in_a_row = None, 0
        self._pause *= 2
        self._look_at = passes + self._pause
        return change

    def _best(self, learned: Learned) -> tuple[Sizes | None, float]:
        """The neighbour that gains the most, if that is enough, and how much."""
        rates = corrected_rates(
            self._foresight.rates, learned.corrections, self._foresight.sizes.batch_size
        )
        lengths = self._foresight.lengths_with(
            prompt=learned.prompt, output=learned.output, sequences=learned.left
        )

        def speed(sizes: Sizes) -> float:
            found = self._foresight.predicted(rates=rates, lengths=lengths, sizes=sizes)
            return found.output_tokens_per_s

        now = speed(self.sizes)
        best, most = None, 0.0
        for sizes in _neighbours(self.sizes, self._foresight.sizes):
            gain = speed(sizes) / now - 1 if now else 0.0
            least = 2 * LEAST_GAIN if sizes in self._left_before else LEAST_GAIN
            if gain > max(least, most):
                best, most = sizes, gain
        return best, most

    def _off(self, learned: Learned) -> dict[str, float]:
        """Factors from what was planned with to what is known by now."""
        c, planned = learned.corrections, self._foresight.lengths
        return {
            "compute": c.compute.factor,
            "prefill": c.prefill.factor,
            "h2d": c.link_in.factor,
            "d2h": c.link_out.factor,
            "disk": c.disk.factor,
            "output": learned.output / planned.output if learned.output else 1.0,
            "prompt": learned.prompt / planned.prompt if learned.prompt else 1.0,
        }


def _neighbours(now: Sizes, planned: Sizes) -> Iterator[Sizes]:
    """Sizes a step away in one direction, within what was planned."""
    steps = {
        "batch_size": (now.batch_size // 2, 3 * now.batch_size // 4, 2 * now.batch_size),
        "batches": (now.batches // 2, now.batches - 1, now.batches + 1, 2 * now.batches),
        "prefill_tokens": [now.prefill_tokens * n // 4 for n in (1, 2, 8, 16)],
    }
    least = {"batch_size": 1, "batches": 1, "prefill_tokens": LEAST_PREFILL}
    for name, values in steps.items():
        most, present = getattr(planned, name), getattr(now, name)
        for value in sorted({min(most, x) for x in values}):
            if value != present and value >= min(least[name], most):
                yield replace(now, **{name: value})


def _sentence(before: Sizes, after: Sizes, gain: float, off: Mapping[str, float]) -> str:
    if after.batch_size != before.batch_size:
        what = f"{after.batch_size:,} sequences a batch instead of {before.batch_size:,}"
    elif after.batches != before.batches:
        what = f"{after.batches:,} batches a pass instead of {before.batches:,}"
    else:
        what = f"{after.prefill_tokens:,} prefill tokens a pass instead of "
        what += f"{before.prefill_tokens:,}"
    name, factor = max(off.items(), key=lambda item: abs(math.log(item[1])))
    return (
        f"planned anew: {what} from here on, {gain:.0%} faster by the cost model, since "
        f"{_FACTORS[name]} {factor:.1f} times as long as planned"
    )
