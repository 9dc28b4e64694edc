"""How long work takes by its rows: what a probe timed, smoothed so that time only grows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from tightrun.policies.hardware import Rates


class RowTimes:
    """Seconds by rows, never less for more rows, on straight lines between the timed points.

    A matrix product takes the reading of its weights and then so much for each row. A probe is
    noisy, and small products may be slower than larger ones; a search needs to rely on time growing
    with the rows, and a product can always be padded to a larger one that is faster.
    """

    def __init__(self, points: Sequence[tuple[int, float]]) -> None:
        self._rows = [rows for rows, _ in points]
        self._seconds = list(accumulate((s for _, s in reversed(points)), min))[::-1]

    def seconds(self, rows: float) -> float:
        """Seconds of so many rows; fewer than were timed take as long as the least of them."""
        if rows <= 0:
            return 0.0
        points, seconds = self._rows, self._seconds
        at = bisect_left(points, rows)
        if at == 0:
            return seconds[0]
        if at == len(points):
            return seconds[-1] * rows / points[-1]
        r0, s0 = points[at - 1], seconds[at - 1]
        return s0 + (seconds[at] - s0) * (rows - r0) / (points[at] - r0)


def product_times(rates: Rates, flops_per_row: float) -> RowTimes:
    """Seconds of the matrix products that take so many FLOPs for each row."""
    return RowTimes([(rows, rows * flops_per_row / rate) for rows, rate in rates.flops_per_s])
