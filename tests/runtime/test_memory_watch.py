"""How near a process is to being killed, read from the files of real systems."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.runtime import recorded_systems as systems
from tests.runtime.recorded_systems import GIB, write
from tightrun.runtime.memory_watch import MemoryState, MemoryWatch

EVENTS = "low 0\nhigh {high}\nmax 2\noom 1\noom_kill {kills}\noom_group_kill 0\n"
PRESSURE = "some avg10=9.00 avg60=1.00 avg300=0.00 total=9\nfull avg10={full} avg60=0.00 total=7\n"
JOB = "sys/fs/cgroup/batch.slice/job.service"


def test_at_rest_only_the_room_left_is_seen(tmp_path: Path) -> None:
    watch = MemoryWatch(systems.systemd_v2(tmp_path))
    assert watch.read() == MemoryState(15 * GIB, 0, 0, 0.0)


def test_room_is_read_anew_every_time(tmp_path: Path) -> None:
    watch = MemoryWatch(systems.systemd_v2(tmp_path))
    write(tmp_path, {f"{JOB}/memory.current": 17 * GIB})
    assert watch.read().free_bytes == GIB


def test_the_machine_counts_where_it_has_less_than_the_group(tmp_path: Path) -> None:
    watch = MemoryWatch(systems.systemd_v2(tmp_path))
    systems.host(tmp_path, available_bytes=2 * GIB)
    assert watch.read().free_bytes == 2 * GIB


def test_kills_are_those_of_the_own_group(tmp_path: Path) -> None:
    watch = MemoryWatch(systems.systemd_v2(tmp_path))
    write(tmp_path, {f"{JOB}/memory.events": EVENTS.format(high=0, kills=3)})
    write(tmp_path, {"sys/fs/cgroup/batch.slice/memory.events": EVENTS.format(high=0, kills=9)})
    assert watch.read().oom_kills == 3


def test_v1_tells_its_kills_elsewhere(tmp_path: Path) -> None:
    watch = MemoryWatch(systems.hybrid(tmp_path))
    control = "sys/fs/cgroup/memory/user.slice/job/memory.oom_control"
    write(tmp_path, {control: "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"})
    assert watch.read().oom_kills == 2


def test_being_slowed_down_counts_in_every_group_above_but_not_beside(tmp_path: Path) -> None:
    watch = MemoryWatch(systems.systemd_v2(tmp_path))
    write(tmp_path, {f"{JOB}/memory.events.local": EVENTS.format(high=5, kills=0)})
    above = "sys/fs/cgroup/batch.slice/memory.events"
    write(tmp_path, {f"{above}.local": EVENTS.format(high=2, kills=0)})
    write(tmp_path, {above: EVENTS.format(high=70, kills=0)})
    assert watch.read().high_events == 7


def test_stalls_are_those_of_the_own_group_where_it_tells(tmp_path: Path) -> None:
    watch = MemoryWatch(systems.systemd_v2(tmp_path))
    write(tmp_path, {"proc/pressure/memory": PRESSURE.format(full="25.00")})
    assert watch.read().stalled_share == pytest.approx(0.25)
    write(tmp_path, {f"{JOB}/memory.pressure": PRESSURE.format(full="50.50")})
    assert watch.read().stalled_share == pytest.approx(0.505)


def test_where_nothing_is_told_nothing_is_claimed(tmp_path: Path) -> None:
    assert MemoryWatch(tmp_path).read() == MemoryState(None, 0, 0, 0.0)


def test_files_that_go_away_do_not_end_the_watch(tmp_path: Path) -> None:
    watch = MemoryWatch(systems.systemd_v2(tmp_path))
    shutil.rmtree(tmp_path / "sys")
    assert watch.read().free_bytes == 240 * GIB


def test_this_process_can_be_watched() -> None:
    free = MemoryWatch().read().free_bytes
    assert free is not None
    assert free > 0
