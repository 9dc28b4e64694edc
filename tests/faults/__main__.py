"""All that happens to runs, as often as is wanted: `python -m tests.faults --kills 100 …`.

Prints a line for each kind of trouble. Ends with 1 at the first job that lost or changed a row.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.faults.cuts import cut_often
from tests.faults.flips import flip_often
from tests.faults.full_disks import REASONS, spoil_often
from tests.faults.kills import kill_often
from tests.faults.long_block import kill_in_a_long_block
from tests.faults.runs import Runs, make_model
from tests.faults.terms import stop_often


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=0, help="kill -9 at random moments")
    parser.add_argument("--cuts", type=int, default=0, help="power cuts")
    parser.add_argument("--terms", type=int, default=0, help="stops by a signal, timed")
    parser.add_argument("--full", type=int, default=0, help="points at which the disk is full")
    parser.add_argument("--other", type=int, default=0, help="points for each other disk trouble")
    parser.add_argument("--flips", type=int, default=0, help="places at which a byte flips")
    parser.add_argument("--long", type=int, default=0, help="kills deep in a block, measured")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder)
        with Runs(folder) as runs:
            _all(asked, runs, folder, model)


def _all(asked: argparse.Namespace, runs: Runs, folder: Path, model: Path) -> None:
    where, seed = (runs, folder, model), asked.seed
    for way, share in (("greedy", 1), ("sampled", 0)):
        several = (asked.kills, asked.cuts, asked.flips, asked.terms)
        kills, cuts, flips, terms = ((n + share) // 2 for n in several)
        _tell(f"kills, {way}", kills, partial(kill_often, *where, way=way, seed=seed))
        _tell(f"power cuts, {way}", cuts, partial(cut_often, *where, way=way, seed=seed))
        _tell(f"stops, {way}", terms, partial(stop_often, *where, way=way, seed=seed))
        _tell(f"flips, {way}", flips, partial(flip_often, *where, way=way, seed=seed))
    for trouble, reason in REASONS.items():
        points = asked.full if trouble == "ENOSPC" else asked.other
        _tell(reason, points, partial(spoil_often, *where, trouble=trouble, seed=seed))
    _tell("kills deep in a block", asked.long, partial(kill_in_a_long_block, *where, seed=seed))


def _tell(what: str, times: int, do: Callable[[int], object]) -> None:
    if not times:
        return
    began_s = time.monotonic()
    found = do(times)
    print(f"{times} {what}: good, {found}, {time.monotonic() - began_s:.0f} s", flush=True)


if __name__ == "__main__":
    main()
