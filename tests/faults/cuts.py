"""The power goes at random moments of a real run: what was not synced is not there afterwards."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.faults.kills import undisturbed
from tests.faults.runs import Runs, check_whole, make_job

# Operations of the disk in one run, about: how far into it the moments go.
_OPERATIONS = 400


@dataclass(frozen=True, slots=True)
class Cuts:
    """How often the power went, in how many runs."""

    cuts: int
    runs: int


def cut_often(runs: Runs, folder: Path, model: Path, cuts: int, *, way: str, seed: int = 0) -> Cuts:
    """Cuts the power of one run after the other; each begins with what the disk had kept.

    Raises AssertionError if a job does not come to what one run comes to.
    """
    chance = random.Random(f"cut {way} {seed}")
    expected = undisturbed(runs, folder, model, way)
    done = number = begun = 0
    while done < cuts:
        out = folder / f"cut-{way}-{number}"
        job, left = make_job(folder, model, out.name, way), folder / "left"
        begun, number, cut = begun + 1, number + 1, True
        while cut and done < cuts:
            moment = chance.randrange(_OPERATIONS)
            where = {"root": str(out), "left": str(left)}
            ended = runs.run(job, {"power_cut": moment, **where})
            begun += 1
            cut = ended.killed
            assert cut or ended.code == 0, f"after a power cut at {moment}:\n{ended.said}"
            if cut:
                done += 1
                shutil.rmtree(out, ignore_errors=True)
                left.rename(out)
        if cut:
            begun += 1
            ended = runs.run(job)
            assert ended.code == 0, ended.said
        check_whole(out, expected)
    return Cuts(done, begun)
