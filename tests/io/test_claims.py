"""Shards divided among runs: each has one run, and a dead run's go to those that live."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.io.machines import end_process, machine
from tightrun.io.claims import Claims, choose
from tightrun.io.durable import Disk
from tightrun.io.lock import LostError, RunLock, take
from tightrun.io.lock_kinds import locks_for
from tightrun.io.owner import SILENT_S


class Team:
    """Runs that share a job of `shards` shards, each a process of one machine of its own."""

    def __init__(self, folder: Path, shards: int, kind: str = "nfs4") -> None:
        self.folder, self.kind = folder, kind
        self.shards = shards
        self.sealed: set[int] = set()
        self.locks: list[RunLock] = []

    def join(self) -> Claims:
        number = len(self.locks) + 1
        here = machine(self.folder / "node", pids={number: number}, me=number)
        lock = take(
            self.folder / "live",
            locks_for(self.kind, here, Disk()),
            here.me,
            target=self.folder,
            shared=True,
        )
        self.locks.append(lock)
        return Claims(lock, self.shards, lambda: self.sealed)

    def seal(self, shard: int) -> None:
        self.sealed.add(shard)

    def kill(self, run: int) -> None:
        end_process(self.folder / "node", run)


@pytest.fixture(params=["ext4", "nfs4"])
def team(request: pytest.FixtureRequest, tmp_path: Path) -> Team:
    return Team(tmp_path, 12, request.param)


def test_every_shard_goes_to_one_run(team: Team) -> None:
    runs = [team.join() for _ in range(4)]
    order = [random.Random(0).choice(runs) for _ in range(200)]
    claimed = [shard for claims in order if (shard := claims.next()) is not None]
    assert sorted(claimed) == list(range(12))


def test_a_run_alone_claims_in_the_order_of_the_input(team: Team) -> None:
    claims = team.join()
    assert [claims.next() for _ in range(13)] == [*range(12), None]


def test_a_run_goes_on_behind_what_it_has_and_others_begin_elsewhere(team: Team) -> None:
    one, two = team.join(), team.join()
    assert [one.next(), one.next()] == [0, 1]
    assert [two.next(), two.next()] == [7, 8]
    assert one.next() == 2


def test_a_late_run_takes_what_is_left(team: Team) -> None:
    early = team.join()
    for _ in range(10):
        shard = early.next()
        assert shard is not None
        team.seal(shard)
    late = team.join()
    assert {late.next(), late.next()} == {10, 11}
    assert late.next() is None
    assert late.elsewhere == frozenset()


def test_what_others_are_at_work_on_is_told(team: Team) -> None:
    one, two = team.join(), team.join()
    theirs = {one.next() for _ in range(12)}
    assert two.next() is None
    assert two.elsewhere == theirs
    team.seal(3)
    assert two.next() is None
    assert two.elsewhere == theirs - {3}


def test_the_claims_of_a_dead_run_go_to_those_that_live(tmp_path: Path) -> None:
    team = Team(tmp_path, 4)
    one, two = team.join(), team.join()
    for _ in range(4):
        one.next()
    assert two.next() is None
    team.kill(1)
    assert sorted(str(two.next()) for _ in range(4)) == ["0", "1", "2", "3"]


def test_a_run_that_ends_early_leaves_its_claims(team: Team) -> None:
    one, two = team.join(), team.join()
    mine = one.next()
    team.locks[0].release()
    assert mine in {two.next() for _ in range(12)}


def test_a_run_that_was_silent_for_too_long_loses_its_claims_and_is_told(tmp_path: Path) -> None:
    team = Team(tmp_path, 2)
    one = team.join()
    one.next()
    then = time.time() - SILENT_S - 1
    os.utime(tmp_path / "live" / "run-0001.json", (then, then))
    here = machine(tmp_path / "other", host="node2", boot="boot-2")
    locks = locks_for("nfs4", here, Disk())
    lock = take(tmp_path / "live", locks, here.me, target=tmp_path, shared=True)
    two = Claims(lock, 2, lambda: set())
    assert [two.next(), two.next()] == [0, 1]
    with pytest.raises(LostError):
        one.next()


@pytest.mark.parametrize(
    ("free", "last", "alone", "best"),
    [
        ([], -1, True, None),
        ([0, 1, 2], -1, False, 0),
        ([1, 2, 3, 8, 9], 0, False, 1),
        ([1, 2, 5, 6, 7, 8, 9], 3, False, 7),
        ([1, 2, 5, 6, 7, 8, 9], 3, True, 5),
        ([4], 9, False, 4),
    ],
)
def test_a_shard_is_chosen_so_that_input_is_read_in_long_stretches(
    free: list[int], last: int, alone: bool, best: int | None
) -> None:
    assert choose(free, last, alone=alone) == best
