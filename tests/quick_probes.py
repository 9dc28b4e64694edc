"""Probes that take no time: for tests of what is computed, not of how fast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tightrun.runtime import (
    cold,
    context_probe,
    host_probe,
    link_rates,
    rates,
    reading_probe,
    stopwatch,
    work_probe,
)


@contextmanager
def quick_probes() -> Iterator[None]:
    """As few runs, rows and bytes as a probe can do with, as long as this lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopwatch, "WINDOW_S", 0.0)
        patch.setattr(stopwatch, "WINDOWS", 1)
        patch.setattr(reading_probe, "TURN_S", 0.005)
        patch.setattr(reading_probe, "TURNS", 1)
        patch.setattr(cold, "USUAL_BYTES", 2**20)
        patch.setattr(cold, "CACHES", "nowhere")
        patch.setattr(rates, "SECONDS_PER_POINT", 0.0)
        patch.setattr(rates, "MEMORY_BYTES", 2**22)
        patch.setattr(host_probe, "PASSES", host_probe.COLD + 1)
        patch.setattr(context_probe, "PASSES", context_probe.COLD + 1)
        patch.setattr(context_probe, "ROWS", 1)
        patch.setattr(link_rates, "PROBE_BYTES", 2**20)
        patch.setattr(work_probe, "ROWS", (1, 64))
        patch.setattr(work_probe, "LOGIT_ROWS", (1, 64))
        yield
