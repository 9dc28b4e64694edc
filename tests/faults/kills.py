"""Kill -9 at random moments, over and over in one job, until somebody has to come to its end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.misfortune import MOMENTS, Misfortune
from tests.faults.runs import Runs, check_whole, make_job, rows_of


@dataclass(slots=True)
class Tale:
    """What the kills came to: how many at each moment, over how many jobs and runs."""

    moments: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    runs: int = 0

    @property
    def kills(self) -> int:
        return self.moments.total()


def kill_often(
    runs: Runs, folder: Path, model: Path, kills: int, *, way: str, seed: int = 0
) -> Tale:
    """Kills runs of a job until there were so many; every job must come to what one run comes to.

    The moments take turns, so that few kills see most of them. Raises AssertionError for a job
    that did not.
    """
    chance, tale = random.Random(f"{way} {seed}"), Tale()
    expected = undisturbed(runs, folder, model, way)
    moments = list(MOMENTS)
    chance.shuffle(moments)
    while tale.kills < kills:
        out = folder / f"{way}-{seed}-{tale.jobs}"
        job = make_job(folder, model, out.name, way)
        tale.jobs += 1
        complete = False
        while tale.kills < kills and not complete:
            at = moments[tale.kills % len(moments)]
            complete = not _killed(runs, job, misfortune_at(at, chance), tale)
            if not complete:
                tale.moments[at] += 1
                _check_shards(out, expected)
        if not complete:
            ended = runs.run(job)
            assert ended.code == 0, ended.said
            tale.runs += 1
        check_whole(out, expected)
    return tale


def misfortune_at(at: str, chance: random.Random) -> Misfortune:
    """A kill at that moment; when exactly is up to chance."""
    times = {"journal": 12, "tokens": 12, "columns": 3, "rename": 14, "manifest": 3, "conclude": 5}
    delays = {"time": 2.5, "load": 1.0, "prefill": 0.03, "decode": 0.03}
    nth = {"prefill": 3, "decode": 150, "seal": 3, **times}.get(at, 1)
    after_s = chance.uniform(0.001, delays[at]) if at in delays else 0.0
    return {"at": at, "nth": chance.randint(1, nth), "after_s": after_s}


def _killed(runs: Runs, job: Path, misfortune: Misfortune, tale: Tale) -> bool:
    """Whether the run was killed; else it came to a good end."""
    ended = runs.run(job, misfortune)
    tale.runs += 1
    assert ended.killed or ended.code == 0, f"after {misfortune}:\n{ended.said}"
    return ended.killed


def undisturbed(runs: Runs, folder: Path, model: Path, way: str) -> list[dict[str, Any]]:
    """The rows of the job when nothing happens to it."""
    out = folder / f"{way}-whole"
    if not out.exists():
        ended = runs.run(make_job(folder, model, out.name, way))
        assert ended.code == 0, ended.said
    return rows_of(out)


def _check_shards(out: Path, expected: Sequence[Mapping[str, Any]]) -> None:
    """Whatever has its name is whole and right at any moment."""
    for row in rows_of(out):
        assert row == expected[row["row_index"]]
