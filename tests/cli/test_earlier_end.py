"""What is said of a run that ended and wrote no end."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.fake_engine import FakeEngine, factory
from tests.cli.fake_tightrun import start
from tests.cli.jobs import Listener, job_of, prompts
from tests.runtime import recorded_systems as systems
from tests.runtime.recorded_systems import GIB, write
from tightrun.cli import run as run_module
from tightrun.cli.earlier_end import EarlierEnd, earlier_end, memory_figures
from tightrun.cli.report import events_of
from tightrun.cli.run import run_job
from tightrun.cli.status import status_lines, status_of
from tightrun.io.outputs import OutputPlace
from tightrun.runtime.memory_watch import MemoryWatch

JOB_EVENTS = "sys/fs/cgroup/batch.slice/job.service/memory.events"


@pytest.fixture
def watch(tmp_path: Path) -> MemoryWatch:
    return MemoryWatch(systems.systemd_v2(tmp_path))


class Told:
    """The events of run 2, one a second."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.add("started", run=2)

    def add(self, name: str, **figures: Any) -> Told:
        time = f"10:00:{len(self.events):02}"
        self.events.append({"time": time, "event": name, **figures})
        return self

    def heard(self, used: float, free: float | None, **memory: Any) -> Told:
        """A sign of life with GiB in use and left."""
        left = None if free is None else int(free * GIB)
        memory = {"rss": int(used * GIB), "free_bytes": left, "oom_kills": 0} | memory
        return self.add("progress", run=2, memory=memory, cpu_budget=12 * GIB)

    def end(self, watch: MemoryWatch) -> EarlierEnd:
        end = earlier_end(self.events, watch, 2)
        assert end is not None
        return end


def test_a_run_last_heard_with_its_memory_full_was_likely_killed_for_it(watch: MemoryWatch) -> None:
    end = Told().heard(4, 8).heard(11.8, 0.2).end(watch)
    assert end.text == (
        "the previous run was killed, likely out of memory at 11.8 of 12.0 GiB "
        "(last heard at 10:00:02)"
    )


def test_a_run_last_heard_with_room_ended_without_a_word(watch: MemoryWatch) -> None:
    end = Told().heard(11.8, 8).end(watch)
    assert end.text == "the previous run ended without a word, last heard at 10:00:01"
    assert not end.out_of_memory


def test_where_nothing_says_what_is_left_the_budget_counts(watch: MemoryWatch) -> None:
    assert Told().heard(11.6, None).end(watch).out_of_memory
    assert not Told().heard(10, None).end(watch).out_of_memory


def test_a_kill_counted_in_the_same_control_group_is_the_kernels_word(
    watch: MemoryWatch, tmp_path: Path
) -> None:
    told = Told().heard(4, 8, group=watch.group)
    other = Told().heard(4, 8, group="/another.service")
    assert not told.end(watch).out_of_memory
    write(tmp_path, {JOB_EVENTS: "oom_kill 1\n"})
    assert told.end(watch).text.startswith("the previous run was killed, likely out of memory at 4")
    assert not other.end(watch).out_of_memory


def test_a_run_that_said_itself_that_memory_is_short_was_right(watch: MemoryWatch) -> None:
    assert Told().heard(4, 8).add("memory_short").end(watch).out_of_memory
    assert (
        not Told().heard(4, 8).add("memory_short").add("memory_relieved").end(watch).out_of_memory
    )


def test_an_error_that_could_not_be_closed_after_is_named(watch: MemoryWatch) -> None:
    end = Told().heard(11.9, 0.1).add("error", error="OSError(28, 'No space left')").end(watch)
    assert end.text.startswith("the previous run broke off: OSError(28, 'No space left')")


def test_other_runs_say_nothing_of_this_one(watch: MemoryWatch) -> None:
    told = Told().add("progress", run=3, memory={"rss": 12 * GIB, "free_bytes": 0})
    assert not told.end(watch).out_of_memory
    assert earlier_end(told.events[1:], watch, 2) is None


def test_a_sign_of_life_holds_what_is_needed_to_tell(watch: MemoryWatch) -> None:
    figures = memory_figures(watch)
    assert figures["free_bytes"] == 15 * GIB
    assert figures["group"].endswith("job.service")
    assert figures["rss"] > 2**20
    assert figures["oom_kills"] == 0


def test_every_run_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "PROGRESS_EVENT_S", 0.01)
    engine = FakeEngine(before=lambda _request: time.sleep(0.03))
    run_job(job_of(tmp_path, prompts(5)), view=Listener(), engine_factory=factory(engine))
    told = [e for e in events_of(OutputPlace.of(tmp_path / "out")) if e["event"] == "progress"]
    assert told
    assert {"rss", "free_bytes", "oom_kills", "group"} <= told[-1]["memory"].keys()
    assert (told[-1]["run"], told[-1]["cpu_budget"]) == (1, 2**30)


def test_a_run_that_was_killed_is_told_of_by_status_and_by_the_next_run(tmp_path: Path) -> None:
    job = job_of(tmp_path, prompts(5))
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    killed = start(tmp_path, "never", "job.yaml")
    place = OutputPlace.of(tmp_path / "out")
    while not any(event["event"] == "started" for event in events_of(place)):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    end = dict(status_lines(status_of(tmp_path / "out")))["end"]
    assert end.startswith("the previous run ended without a word, last heard at 2")
    view = Listener()
    run_job(job, view=view, engine_factory=factory(FakeEngine()))
    assert end in view.notes
    assert status_of(tmp_path / "out").end == ""
