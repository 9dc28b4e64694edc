"""Disks that are full, read-only, out of reach or broken once, at random points of a real run."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from tests.faults.kills import undisturbed
from tests.faults.misfortune import Misfortune
from tests.faults.runs import Ended, Runs, check_whole, make_job
from tightrun.cli.exit_codes import ExitCode

REASONS = {
    "ENOSPC": "No space left on device",
    "EROFS": "Read-only file system",
    "EACCES": "Permission denied",
    "EIO": "Input/output error",
}
# How many operations of a run each trouble may meet, about.
_OPERATIONS = {"ENOSPC": 150, "EROFS": 100, "EACCES": 100, "EIO": 200}


def spoil_often(
    runs: Runs, folder: Path, model: Path, points: int, *, trouble: str, seed: int = 0
) -> Counter[int]:
    """Spoils the disk at so many points of a job; returns how many runs ended with each code.

    The job is gone on with after each, in the end with a disk that is well, and must come to what
    one run comes to.
    """
    chance = random.Random(f"{trouble} {seed}")
    expected = undisturbed(runs, folder, model, "greedy")
    codes: Counter[int] = Counter()
    number = 0
    while codes.total() < points:
        out = folder / f"{trouble}-{number}"
        job = make_job(folder, model, out.name)
        number += 1
        code = -1
        while code != 0:
            spoilt = codes.total() < points
            nth = chance.randint(1, _OPERATIONS[trouble])
            misfortune = {"disk": trouble, "nth": nth, "once": trouble == "EIO"}
            ended = runs.run(job, misfortune if spoilt else None)
            code = ended.code
            if code != 0:
                assert spoilt, ended.said
                codes[code] += 1
                check_told(ended, misfortune)
        check_whole(out, expected)
    return codes


def check_told(ended: Ended, misfortune: Misfortune) -> None:
    """The run ended as it should, and its last line says why."""
    about = f"after {misfortune}:\n{ended.said}"
    assert ended.code in (ExitCode.INTERNAL_ERROR, ExitCode.STOPPED), about
    last = ended.said.rstrip().splitlines()[-1]
    assert last.startswith("tightrun: "), about
    assert REASONS[misfortune["disk"]] in last, about
    assert "Traceback" not in ended.said, about
