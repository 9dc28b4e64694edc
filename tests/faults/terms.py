"""A signal that asks a run to stop, in each of its phases: it stops soon, and is gone on with."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.faults.kills import misfortune_at, undisturbed
from tests.faults.misfortune import MOMENTS, PREPARING
from tests.faults.runs import Runs, check_whole, make_job

SIGNALS = ("SIGTERM", "SIGUSR1", "SIGTERM", "SIGINT", "SIGTERM", "SIGUSR2")
STOPPED = 75
# Every layer of a pass takes so long: a stop does not wait for those that are left.
SLOW_LAYER_S = 8.0
LONG_PASS = "a long pass"
# What comes before the first row takes so much longer, so that the signal finds it at work.
HOLD_S = 30.0
PHASES = (*MOMENTS, *PREPARING, LONG_PASS)


@dataclass(slots=True)
class Stops:
    """How long it took from the signal to the end, in seconds, and in which phases."""

    seconds: list[float] = field(default_factory=list)
    phases: Counter[str] = field(default_factory=Counter)
    ended_before: int = 0

    def __str__(self) -> str:
        found = f"{len(self.seconds)} stopped, {self.ended_before} were over before"
        if not self.seconds:
            return found
        return f"{found}; seconds: median {median(self.seconds):.2f}, worst {max(self.seconds):.2f}"


def stop_often(
    runs: Runs, folder: Path, model: Path, stops: int, *, way: str, seed: int = 0
) -> Stops:
    """Stops so many runs, each in the next of the phases, and lets every job come to its end.

    Raises AssertionError for a run that ends otherwise than with 75 (or 0, if it was over already),
    or a job that loses or changes a row.
    """
    chance, found = random.Random(f"terms {way} {seed}"), Stops()
    expected = undisturbed(runs, folder, model, way)
    phases = list(PHASES)
    chance.shuffle(phases)
    for number in range(stops):
        phase = phases[number % len(phases)]
        out = folder / f"terms-{way}-{seed}-{number}"
        mark = folder / "struck"
        mark.unlink(missing_ok=True)
        job = make_job(folder, model, out.name, way)
        misfortune = {
            **_misfortune_in(phase, chance),
            "signal": SIGNALS[number % len(SIGNALS)],
            "mark": str(mark),
        }
        # A run has to find out about a model only once.
        fresh = {"XDG_CACHE_HOME": str(folder / "fresh" / out.name)} if phase == "learn" else {}
        ended = runs.run(job, misfortune, environment=fresh)
        assert ended.code in (0, STOPPED), f"{ended.code} after {misfortune}:\n{ended.said}"
        if ended.code == STOPPED:
            found.seconds.append(ended.at_s - float(mark.read_text()))
            found.phases[phase] += 1
            again = runs.run(job)
            assert again.code == 0, again.said
        else:
            found.ended_before += 1
        check_whole(out, expected)
    return found


def _misfortune_in(phase: str, chance: random.Random) -> dict[str, object]:
    if phase in PREPARING:
        hold_s = 0.0 if phase == "learn" else HOLD_S
        return {"at": phase, "nth": 1, "after_s": chance.uniform(0.1, 1.0), "hold_s": hold_s}
    if phase != LONG_PASS:
        return dict(misfortune_at(phase, chance))
    return {"at": "prefill", "nth": 1, "after_s": 0.2, "layer_s": SLOW_LAYER_S}
