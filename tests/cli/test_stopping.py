"""What ends a run before its last row."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.stopping import (
    SIGNALS,
    Stop,
    StoppedError,
    slurm_seconds,
    stop_on_signals,
    time_limit,
)


def test_the_first_reason_stands() -> None:
    stop = Stop()
    stop.request("first", ExitCode.STOPPED)
    stop.request("second", ExitCode.TOO_MANY_FAILED)
    assert (stop.reason, stop.code) == ("first", ExitCode.STOPPED)


def test_the_first_error_of_a_thread_is_kept_and_stops_the_run() -> None:
    stop, first = Stop(), OSError("disk full")
    stop.fail(first)
    stop.fail(ValueError("later"))
    assert stop.event.is_set()
    assert stop.error is first


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_the_run_and_names_itself(number: signal.Signals) -> None:
    stop, told = Stop(), threading.Event()
    with stop_on_signals(stop, first=lambda _name: told.set(), last=lambda: None):
        os.kill(os.getpid(), number)
        assert stop.event.wait(5)
        assert told.wait(5)
    assert stop.code == ExitCode.STOPPED
    assert number.name in stop.reason


def test_the_handlers_from_before_are_put_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_on_signals(Stop(), first=lambda _name: None, last=lambda: None):
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_the_second_signal_exits_at_once() -> None:
    source = (
        "import os, signal, time\n"
        "from tightrun.cli.stopping import Stop, stop_on_signals\n"
        "with stop_on_signals(Stop(), first=lambda name: None, last=lambda: None):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    ended = subprocess.run([sys.executable, "-c", source], timeout=30, check=False)
    assert ended.returncode == ExitCode.SECOND_INTERRUPT


def test_the_time_limit_breaks_into_a_phase_that_has_nothing_to_save() -> None:
    stop, began_s = Stop(), time.monotonic()
    with (
        stop_on_signals(stop, first=lambda _name: None, last=lambda: None),
        time_limit(stop, 0.05),
        pytest.raises(StoppedError),
        stop.nothing_to_save(),
    ):
        time.sleep(30)
    assert stop.code == ExitCode.STOPPED
    assert time.monotonic() - began_s < 20


def test_the_time_limit_breaks_into_nothing_else() -> None:
    stop = Stop()
    with stop_on_signals(stop, first=lambda _name: None, last=lambda: None):
        with time_limit(stop, 0.01):
            time.sleep(0.1)
        assert stop.event.is_set()


def test_a_signal_breaks_into_a_phase_that_has_nothing_to_save() -> None:
    stop = Stop()
    with (
        stop_on_signals(stop, first=lambda _name: None, last=lambda: None),
        pytest.raises(StoppedError),
        stop.nothing_to_save(),
    ):
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_never_breaks_into_a_phase_that_saves() -> None:
    stop = Stop()
    with stop_on_signals(stop, first=lambda _name: None, last=lambda: None):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.event.wait(5)


def test_a_stop_from_before_ends_such_a_phase_where_it_begins() -> None:
    stop = Stop()
    stop.request("the time is up", ExitCode.STOPPED)
    with pytest.raises(StoppedError), stop.nothing_to_save():
        pytest.fail("the phase must not begin")


def test_the_time_limit_stops_the_run() -> None:
    stop = Stop()
    with time_limit(stop, 0.01):
        assert stop.event.wait(5)
    assert stop.code == ExitCode.STOPPED


def test_a_run_that_ends_in_time_is_not_stopped() -> None:
    stop = Stop()
    with time_limit(stop, 60, {}):
        pass
    assert not stop.event.wait(0.05)


@pytest.mark.parametrize(
    ("end", "job", "left_s"),
    [
        ("1000100", "7", 100.0),
        ("999999", "7", None),
        ("1000100", None, None),
        ("", "7", None),
        ("Unknown", "7", None),
        ("4294967294", "7", None),
    ],
)
def test_the_end_of_a_slurm_job_is_read(end: str, job: str | None, left_s: float | None) -> None:
    environment = {"SLURM_JOB_END_TIME": end} | ({"SLURM_JOB_ID": job} if job else {})
    assert slurm_seconds(environment, 1_000_000.0) == left_s


def test_a_run_stops_before_its_slurm_job_ends() -> None:
    end = {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(time.time()) + 30)}
    stop = Stop()
    with time_limit(stop, 3600, end):
        assert stop.event.wait(5)
    assert stop.code is ExitCode.STOPPED
    assert stop.reason == "60 s before the Slurm job ends (SLURM_JOB_END_TIME)"
