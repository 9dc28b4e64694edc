"""Lengths of prompts and outputs as real workloads have them, made from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SIGMA = 0.9
CUT = 4


@dataclass(frozen=True, slots=True)
class Workload:
    """Mean tokens of prompts and outputs; all alike, or log-normal and cut at four times that."""

    name: str
    prompt_tokens: int
    output_tokens: int
    alike: bool

    def rows(self, count: int, seed: int) -> list[tuple[int, int]]:
        """(prompt tokens, output tokens) of every row; at least one of each."""
        if self.alike:
            return [(self.prompt_tokens, self.output_tokens)] * count
        draw = np.random.default_rng(seed)
        prompts = _log_normal(draw, self.prompt_tokens, count)
        return list(zip(prompts, _log_normal(draw, self.output_tokens, count), strict=True))

    @property
    def longest(self) -> int:
        """Tokens that no row exceeds."""
        times = 1 if self.alike else CUT
        return times * (self.prompt_tokens + self.output_tokens)


def _log_normal(draw: np.random.Generator, mean: int, count: int) -> list[int]:
    """Whole numbers from 1 to `CUT * mean`. What is cut off lowers their mean by a twentieth."""
    drawn = draw.lognormal(math.log(mean) - SIGMA**2 / 2, SIGMA, count)
    clipped: list[int] = np.clip(np.rint(drawn), 1, CUT * mean).astype(int).tolist()
    return clipped


FIXED = Workload("512-32", 512, 32, alike=True)
SHAREGPT = Workload("sharegpt", 344, 237, alike=False)
WORKLOADS = {workload.name: workload for workload in (FIXED, SHAREGPT)}
