"""A run that is killed, loses its power, its disk or some bytes comes to what one run comes to.

`python -m tests.faults` does the same many more times.
"""

from __future__ import annotations

import pytest

from tests.faults.conftest import World
from tests.faults.cuts import cut_often
from tests.faults.flips import flip_often
from tests.faults.full_disks import spoil_often
from tests.faults.kills import kill_often
from tests.faults.misfortune import MOMENTS
from tests.faults.terms import stop_often

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("way", "kills"), [("greedy", 8), ("sampled", 7)])
def test_kills_lose_no_row_and_change_no_text(world: World, way: str, kills: int) -> None:
    tale = kill_often(world.runs, world.folder, world.model, kills, way=way)
    assert tale.kills == kills
    assert len(tale.moments) == min(kills, len(MOMENTS))


def test_power_cuts_lose_no_row_and_change_no_text(world: World) -> None:
    assert cut_often(world.runs, world.folder, world.model, 4, way="greedy").cuts == 4


@pytest.mark.parametrize(
    ("trouble", "points"), [("ENOSPC", 2), ("EROFS", 1), ("EACCES", 1), ("EIO", 2)]
)
def test_a_disk_that_fails_is_named_and_nothing_is_lost(
    world: World, trouble: str, points: int
) -> None:
    codes = spoil_often(world.runs, world.folder, world.model, points, trouble=trouble)
    assert codes.total() == points


def test_a_signal_stops_a_run_in_any_phase_and_it_is_gone_on_with(world: World) -> None:
    found = stop_often(world.runs, world.folder, world.model, 2, way="greedy", seed=1)
    assert len(found.seconds) + found.ended_before == 2
    assert found.seconds


def test_bytes_that_flip_are_found_and_said_and_their_rows_run_again(world: World) -> None:
    flipped = flip_often(world.runs, world.folder, world.model, 5, way="greedy")
    assert set(flipped) == {"shard", "seal", "journal", "tokens", "columns"}
