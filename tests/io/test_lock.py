"""One writer: a run that lives keeps others away, one that died does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.io.machines import end_process, machine
from tightrun.io.durable import Disk
from tightrun.io.lock import LockedError, LostError, RunLock, live_runs, take, turn
from tightrun.io.lock_kinds import KernelLocks, LockFiles, Locks, locks_for
from tightrun.io.owner import SILENT_S, Here


@pytest.fixture(params=["xfs", "nfs4"])
def locks(request: pytest.FixtureRequest, tmp_path: Path) -> Locks:
    """Locks for a disk of this machine, and for one that many machines see."""
    return locks_for(request.param, machine(tmp_path / "node1"), Disk())


def taken(
    tmp_path: Path, locks: Locks, here: Here | None = None, *, shared: bool = False
) -> RunLock:
    owner = (here or machine(tmp_path / "node1")).me
    return take(tmp_path / "out" / "live", locks, owner, target=tmp_path / "out", shared=shared)


def is_gone(tmp_path: Path) -> bool:
    return not (tmp_path / "out" / "live").exists()


@pytest.mark.parametrize("kind", ["nfs", "lustre", "gpfs", "cifs", "fuse.sshfs", "beegfs", "9p"])
def test_what_many_machines_see_is_locked_by_files(tmp_path: Path, kind: str) -> None:
    assert isinstance(locks_for(kind, machine(tmp_path), Disk()), LockFiles)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "overlay", "tmpfs", None])
def test_a_disk_of_this_machine_is_locked_by_the_kernel(tmp_path: Path, kind: str | None) -> None:
    assert isinstance(locks_for(kind, machine(tmp_path), Disk()), KernelLocks)


def test_a_second_run_is_refused_and_told_who_holds_the_output(
    tmp_path: Path, locks: Locks
) -> None:
    taken(tmp_path, locks)
    with pytest.raises(LockedError, match=r"out is held by .*process 100 on node1"):
        taken(tmp_path, locks)


def test_afterwards_nothing_is_left_and_the_next_may_come(tmp_path: Path, locks: Locks) -> None:
    taken(tmp_path, locks).release()
    assert is_gone(tmp_path)
    taken(tmp_path, locks)


def test_a_run_can_take_a_later_number(tmp_path: Path, locks: Locks) -> None:
    held = taken(tmp_path, locks)
    held.renumber(7)
    assert held.run == 7
    held.renumber(3)
    assert held.run == 7
    with pytest.raises(LockedError):
        taken(tmp_path, locks)
    (live,) = live_runs(tmp_path / "out" / "live", locks)
    assert (live[0].run, live[1]) == (7, True)
    held.renew({})
    held.release()
    assert is_gone(tmp_path)


def test_a_refused_run_leaves_nothing_behind(tmp_path: Path, locks: Locks) -> None:
    held = taken(tmp_path, locks)
    before = sorted((tmp_path / "out").rglob("*"))
    with pytest.raises(LockedError):
        taken(tmp_path, locks)
    assert sorted((tmp_path / "out").rglob("*")) == before
    held.release()


def test_runs_that_share_bear_each_other_and_have_numbers_of_their_own(
    tmp_path: Path, locks: Locks
) -> None:
    team = [taken(tmp_path, locks, shared=True) for _ in range(3)]
    assert [lock.run for lock in team] == [1, 2, 3]
    with pytest.raises(LockedError):
        taken(tmp_path, locks)
    for lock in team:
        lock.release()
    assert is_gone(tmp_path)


def test_a_run_alone_does_not_bear_one_that_would_share(tmp_path: Path, locks: Locks) -> None:
    taken(tmp_path, locks)
    with pytest.raises(LockedError):
        taken(tmp_path, locks, shared=True)


def test_what_a_run_says_of_itself_can_be_read_from_the_folder(
    tmp_path: Path, locks: Locks
) -> None:
    held = taken(tmp_path, locks)
    held.renew({"done": 7})
    ((record, lives),) = live_runs(tmp_path / "out" / "live", locks)
    assert (record.run, dict(record.figures), lives) == (1, {"done": 7}, True)


def test_turns_are_taken_one_at_a_time(tmp_path: Path, locks: Locks) -> None:
    inside: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            with turn(tmp_path / "live", locks, Disk()):
                inside.append(number)
                time.sleep(0.0002)
                assert inside.pop() == number
                assert inside == []
            Disk().remove_folder(tmp_path / "live")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


HOLD = """
import sys
from pathlib import Path
from tightrun.io.durable import Disk
from tightrun.io.lock import take
from tightrun.io.lock_kinds import locks_for
from tightrun.io.owner import Here
here = Here.of({})
folder = Path(sys.argv[1]) / "live"
take(folder, locks_for(sys.argv[2], here, Disk()), here.me, target=folder.parent)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["ext4", "nfs4"])
def test_a_killed_process_holds_nothing_and_is_named(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        here = Here.of(os.environ)
        locks = locks_for(kind, here, Disk())
        with pytest.raises(LockedError, match=f"process {process.pid} "):
            take(tmp_path / "live", locks, here.me, target=tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    lock = take(tmp_path / "live", locks, here.me, target=tmp_path)
    assert [dead.owner.pid for dead in lock.left] == [process.pid]
    assert lock.run == 2
    lock.release()
    assert not (tmp_path / "live").exists()


def age(tmp_path: Path, seconds: float) -> None:
    """Makes the records of runs older."""
    for path in (tmp_path / "out" / "live").glob("run-*.json"):
        then = time.time() - seconds
        os.utime(path, (then, then))


def test_a_run_on_another_machine_is_believed_until_it_is_silent_for_long(tmp_path: Path) -> None:
    one, two = machine(tmp_path / "1"), machine(tmp_path / "2", host="node2", boot="boot-2")
    taken(tmp_path, LockFiles(one, Disk()), one)
    age(tmp_path, SILENT_S - 30)
    with pytest.raises(LockedError, match="node1"):
        taken(tmp_path, LockFiles(two, Disk()), two)
    age(tmp_path, SILENT_S + 1)
    assert [dead.owner.host for dead in taken(tmp_path, LockFiles(two, Disk()), two).left] == [
        "node1"
    ]


def test_silence_is_measured_by_the_clock_that_dates_the_files(tmp_path: Path) -> None:
    one, two = machine(tmp_path / "1"), machine(tmp_path / "2", host="node2", boot="boot-2")
    taken(tmp_path, LockFiles(one, Disk()), one)
    ahead = LockFiles(two, Disk(), clock=lambda: time.time() + 10 * SILENT_S)
    with pytest.raises(LockedError):
        taken(tmp_path, ahead, two)


def test_a_job_that_slurm_has_ended_need_not_be_silent_for_long(tmp_path: Path) -> None:
    job = {"SLURM_JOB_ID": "77"}
    one = machine(tmp_path / "1", environment=job)
    two = machine(tmp_path / "2", host="node2", boot="boot-2", slurm="")
    taken(tmp_path, LockFiles(one, Disk()), one)
    taken(tmp_path, LockFiles(two, Disk()), two)


def test_a_run_that_was_taken_for_dead_writes_no_more(tmp_path: Path) -> None:
    one, two = machine(tmp_path / "1"), machine(tmp_path / "2", host="node2", boot="boot-2")
    slept = taken(tmp_path, LockFiles(one, Disk()), one)
    age(tmp_path, SILENT_S + 1)
    held = taken(tmp_path, LockFiles(two, Disk()), two)
    with pytest.raises(LostError):
        slept.renew({})
    slept.release()
    held.renew({})


def test_a_turn_that_nobody_lives_to_end_is_put_away(tmp_path: Path) -> None:
    one = machine(tmp_path / "1")
    two = machine(tmp_path / "1", pids={100: 1_100, 200: 1_200}, me=200)
    folder = tmp_path / "live"
    with turn(folder, LockFiles(one, Disk()), Disk()):
        end_process(tmp_path / "1", 100)
        with turn(folder, LockFiles(two, Disk()), Disk()):
            assert [path.name for path in folder.iterdir()] == ["turn.lock"]
    assert list(folder.iterdir()) == []
