"""What share of what they are allowed outputs take: counted, and as a curve for the rest."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from math import prod
from typing import Any

# Equal parts of what is allowed; one more is of outputs that took all of it.
PARTS = 64
_QUANTILES = (0.1, 0.5, 0.9)


def bin_of(tokens: int, allowed: int) -> int:
    """The part of what is allowed in which an output of so many tokens ends."""
    return min(PARTS, PARTS * tokens // max(1, allowed))


def _zeros() -> list[float]:
    return [0.0] * (PARTS + 1)


@dataclass(slots=True)
class Learnt:
    """Outputs that have ended: how many in each part of what they were allowed, and the sums of
    their tokens and of the tokens allowed."""

    finished: int = 0
    tokens: float = 0.0
    allowed: float = 0.0
    ended: list[float] = field(default_factory=_zeros)

    def add(self, tokens: int, allowed: int) -> None:
        self.finished += 1
        self.tokens += tokens
        self.allowed += allowed
        self.ended[bin_of(tokens, allowed)] += 1

    def plus(self, other: Learnt) -> Learnt:
        return Learnt(
            self.finished + other.finished,
            self.tokens + other.tokens,
            self.allowed + other.allowed,
            [a + b for a, b in zip(self.ended, other.ended, strict=True)],
        )

    def scaled(self, most: int) -> Learnt:
        """The same, counting as `most` outputs at the most."""
        if self.finished <= most:
            return self
        share = most / self.finished
        ended = [share * count for count in self.ended]
        return Learnt(most, share * self.tokens, share * self.allowed, ended)

    @property
    def mean_share(self) -> float:
        """The share of what was allowed that was taken; 1.0 where nothing is known."""
        return self.tokens / self.allowed if self.allowed else 1.0

    def quantile(self, share: float) -> float:
        """The part of what is allowed in which that share of the outputs has ended."""
        sums = list(accumulate(self.ended))
        return min(1.0, bisect_left(sums, share * sums[-1]) / PARTS)

    def as_json(self) -> dict[str, Any]:
        """For the manifest: counts, mean and quantiles for people, and the parts to go on from."""
        return {
            "finished": self.finished,
            "tokens": round(self.tokens),
            "allowed": round(self.allowed),
            "mean_share": round(self.mean_share, 4),
            "quantiles": {f"{q:g}": self.quantile(q) for q in _QUANTILES},
            "parts": PARTS,
            "ended": {str(i): round(n, 3) for i, n in enumerate(self.ended) if n},
        }

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Learnt:
        """From what `as_json` gave; ValueError if it is of another version."""
        if content["parts"] != PARTS:
            raise ValueError(f"output lengths in {content['parts']} parts, not {PARTS}")
        ended = [float(content["ended"].get(str(part), 0.0)) for part in range(PARTS + 1)]
        return cls(int(content["finished"]), content["tokens"], content["allowed"], ended)


@dataclass(frozen=True, slots=True)
class ShareCurve:
    """The mean share that outputs come to in the end which have come to each part by now.

    `seen` is the share of all outputs whose end has been seen in others; the rest is foreseen.
    """

    means: tuple[float, ...]
    seen: float

    def mean(self, part: int) -> float:
        return self.means[part]

    @classmethod
    def of(cls, learnt: Learnt, running: Iterable[tuple[int, int]]) -> ShareCurve:
        """The curve of Kaplan and Meier (1958): of all that come to a part, a share ends there.

        Those that run have come to their part and say nothing of what follows. Where none has been
        yet, as many end in each part as did in the later half of those that were reached.
        `running` are written and allowed tokens. The parts' values are such that the mean is exact
        where all have ended that were allowed as much.
        """
        here = _zeros()
        for written, allowed in running:
            here[bin_of(written, allowed)] += 1
        ended = learnt.ended
        # Half of those who are in a part now will not end in it.
        reached = [0.0] * (PARTS + 2)
        for part in range(PARTS, -1, -1):
            reached[part] = reached[part + 1] + ended[part] + here[part]
        at_risk = [reached[part] - here[part] / 2 for part in range(PARTS + 1)]
        came_to = sum(1 for n in at_risk if n)
        later = slice(came_to // 2, came_to)
        exposure = sum(at_risk[later])
        usual = sum(ended[later]) / exposure if exposure else 0.0
        ending = [e / n if n else usual for e, n in zip(ended, at_risk, strict=True)]
        ending[PARTS] = 1.0
        values = [(part + 0.5) / PARTS for part in range(PARTS)] + [1.0]
        counted = sum(e * v for e, v in zip(ended, values, strict=True))
        scale = learnt.mean_share * sum(ended) / counted if counted else 1.0
        values = [min(1.0, scale * v) for v in values]
        means = [1.0] * (PARTS + 1)
        for part in range(PARTS - 1, -1, -1):
            means[part] = ending[part] * values[part] + (1 - ending[part]) * means[part + 1]
        unseen = prod(1 - share for share, n in zip(ending, at_risk, strict=True) if n)
        return cls(tuple(means), 1 - unseen)
