"""How long matrix products take by their rows: the probe, smoothed so that time only grows."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from tightrun.policies.hardware import Rates


class RowTimes:
    """Seconds of matrix products by rows, never less for more rows.

    A probe is noisy, and small products may be slower than larger ones. A search needs to rely on
    time growing with the rows, and a product can always be padded to a larger one that is faster.
    """

    def __init__(self, rates: Rates) -> None:
        self.rows = [rows for rows, _ in rates.flops_per_s]
        seconds = [rows / rate for rows, rate in rates.flops_per_s]
        least = list(accumulate(reversed(seconds), min))[::-1]
        self.flops_per_s = [rows / s for rows, s in zip(self.rows, least, strict=True)]

    def seconds(self, rows: int, flops_per_row: float) -> float:
        """Seconds of a product of `rows` rows that takes `flops_per_row` FLOPs for each."""
        if rows <= 0:
            return 0.0
        points, rates = self.rows, self.flops_per_s
        at = bisect_left(points, rows)
        if at == 0:
            return points[0] * flops_per_row / rates[0]
        if at == len(points):
            return rows * flops_per_row / rates[-1]
        r0, f0 = points[at - 1], rates[at - 1]
        return rows * flops_per_row / (f0 + (rates[at] - f0) * (rows - r0) / (points[at] - r0))
