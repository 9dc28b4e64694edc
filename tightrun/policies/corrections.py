"""What measured passes teach about the probed rates: factors on time, believed slowly.

Undamped feedback of measured times makes a recompute ratio swing; see TightLLM's online decision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tightrun.policies.cost import PassBound, seconds_on
from tightrun.policies.hardware import Rates
from tightrun.policies.loads import PassMeasured

# Natural logarithms of ratios. A time further off than JUMP is no noise: the speed has changed,
# or the pass was a strange one; two of them in the same direction settle which.
JUMP = 0.2
MOST_STEP = math.log(2)
# The share of a deviation that is taken over once the factor has settled, and after a change.
SETTLED_WEIGHT = 0.06
CHANGED_WEIGHT = 0.9


@dataclass(slots=True)
class Correction:
    """A factor from predicted to measured seconds of one resource.

    Follows the mean of the passes since the last change of speed. A single pass far off hardly
    moves it, a second one does, by a factor of 2 at most. The first of all is believed as much as
    the probe.
    """

    factor: float = 1.0
    _passes: int = 1
    _strange: float = 0.0

    def learn(self, predicted_s: float, measured_s: float) -> None:
        """Take in one pass; `predicted_s` is without the factor. Nothing is learnt from nothing."""
        if predicted_s <= 0 or measured_s <= 0:
            return
        off = math.log(measured_s / (predicted_s * self.factor))
        if abs(off) > JUMP and self._passes > 1:
            confirmed = off * self._strange > 0
            self._strange = off
            if confirmed:
                self._passes = 2
                self._move(CHANGED_WEIGHT * off)
            else:
                self._move(SETTLED_WEIGHT * math.copysign(JUMP, off))
            return
        self._strange = 0.0
        self._passes += 1
        self._move(off * max(SETTLED_WEIGHT, 1 / self._passes))

    def _move(self, step: float) -> None:
        self.factor *= math.exp(max(-MOST_STEP, min(MOST_STEP, step)))


@dataclass(slots=True)
class Corrections:
    """The factors of a pass's resources, and of the whole pass for what does not overlap.

    Wide passes of prefill are off the probe by another factor than those of decode, and the two
    may take turns: `compute` is of decode, `prefill` of the compute of passes with prefill.
    """

    compute: Correction = field(default_factory=Correction)
    link_in: Correction = field(default_factory=Correction)
    link_out: Correction = field(default_factory=Correction)
    disk: Correction = field(default_factory=Correction)
    elapsed: Correction = field(default_factory=Correction)
    prefill: Correction = field(default_factory=Correction)

    def computing(self, prefills: bool) -> Correction:
        """The factor of compute for such a pass."""
        return self.prefill if prefills else self.compute

    def applied(self, times: PassBound, *, prefills: bool = False) -> PassBound:
        """The times as the passes so far have corrected them."""
        return PassBound(
            times.compute_s * self.computing(prefills).factor,
            times.memory_s,
            times.link_in_s * self.link_in.factor,
            times.link_out_s * self.link_out.factor,
            times.disk_s * self.disk.factor,
        )

    def learn(
        self, predicted: PassBound, rates: Rates, measured: PassMeasured, *, prefills: bool = False
    ) -> None:
        """Take in a pass; `predicted` is without corrections.

        A link is learnt from the bytes it really moved, compute from the time it was busy: neither
        waits for the other in what is measured. What the pass took beyond the busiest of them
        is what did not overlap, however well they were predicted.
        """
        m = measured
        busiest_s = max(m.compute_s, m.link_in_s, m.link_out_s, m.disk_s)
        self.elapsed.learn(busiest_s, m.elapsed_s)
        self.computing(prefills).learn(predicted.compute_s, m.compute_s)
        self.link_in.learn(seconds_on(m.link_in_bytes, rates.h2d_bytes_per_s), m.link_in_s)
        self.link_out.learn(seconds_on(m.link_out_bytes, rates.d2h_bytes_per_s), m.link_out_s)
        self.disk.learn(seconds_on(m.disk_bytes, rates.disk_bytes_per_s), m.disk_s)
