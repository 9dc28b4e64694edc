"""How much of the processors others took while something was measured: a figure that was made
beside other work says little, and should say so itself."""

from __future__ import annotations

import time

import psutil

# Long enough for the system's clock, which counts in hundredths of a second.
LOOK_S = 0.25


class Disturbance:
    """Begins to watch when it is made; `share` is what others have taken since then."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._cores = psutil.cpu_count() or 1
        self._began_s = time.perf_counter()
        self._all_s, self._own_s = self._busy_s(), self._mine_s()

    def share(self) -> float:
        """Share of the time of all processors that went to other processes than this one."""
        passed_s = time.perf_counter() - self._began_s
        all_s, own_s = self._busy_s() - self._all_s, self._mine_s() - self._own_s
        return taken_by_others(all_s, own_s, passed_s, self._cores)

    def _busy_s(self) -> float:
        times = psutil.cpu_times()
        waiting = times.idle + getattr(times, "iowait", 0.0)
        guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return float(sum(times) - waiting - guests)

    def _mine_s(self) -> float:
        mine = self._process.cpu_times()
        return float(mine.user + mine.system)


def taken_by_others(all_s: float, own_s: float, passed_s: float, cores: int) -> float:
    """Of `cores` processors over so many seconds, the share that was busy and not by ourselves."""
    return max(0.0, all_s - own_s) / max(1e-9, passed_s * cores)


def others_now() -> float:
    """The share that others take at the moment; takes a quarter of a second."""
    watch = Disturbance()
    time.sleep(LOOK_S)
    return watch.share()
