"""The host lane: work in the order of sending, beside the computing."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from tightrun.runtime.happenings import LinkClosedError, Outcome, TransferFailedError
from tightrun.runtime.host_lane import ThreadHostLane
from tightrun.runtime.lane_log import LaneLog


@pytest.fixture
def log() -> LaneLog:
    return LaneLog()


@pytest.fixture
def lane(log: LaneLog) -> Iterator[ThreadHostLane]:
    lane = ThreadHostLane(log)
    yield lane
    lane.close()


def test_work_runs_in_the_order_of_sending_however_long_the_first_waits(
    lane: ThreadHostLane,
) -> None:
    gate, done = Outcome("gate"), []
    lane.send(lambda: done.append(1), "first", after=[gate])
    last = lane.send(lambda: done.append(2), "second")
    gate.finish()
    last.wait()
    assert done == [1, 2]


def test_work_runs_beside_the_caller(lane: ThreadHostLane) -> None:
    threads = []
    lane.send(lambda: threads.append(threading.current_thread()), "work").wait()
    assert threads != [threading.current_thread()]


def test_an_error_of_the_work_is_raised_by_wait_and_the_next_work_runs(
    lane: ThreadHostLane,
) -> None:
    failed = lane.send(lambda: [][1], "spread")
    lane.send(lambda: None, "next").wait()
    with pytest.raises(TransferFailedError, match="spread") as raised:
        failed.wait()
    assert isinstance(raised.value.__cause__, IndexError)


def test_work_after_what_failed_does_not_run(lane: ThreadHostLane) -> None:
    gate, done = Outcome("gate"), []
    gate.finish(OSError("torn"))
    with pytest.raises(TransferFailedError, match="torn"):
        lane.send(lambda: done.append(1), "spread", after=[gate]).wait()
    assert not done


def test_work_may_write_to_what_was_made_in_inference_mode(lane: ThreadHostLane) -> None:
    with torch.inference_mode():
        numbers = torch.zeros(3)

    def work() -> None:
        numbers.add_(1)

    lane.send(work, "spread").wait()
    assert numbers.sum() == 3


def test_work_is_timed(lane: ThreadHostLane, log: LaneLog) -> None:
    lane.send(lambda: None, "spread").wait()
    (span,) = log.drain()
    assert (span.lane, span.name) == ("cpu", "spread")
    assert lane.busy_s == span.end_s - span.start_s > 0


def test_close_ends_the_thread_and_fails_what_is_left(log: LaneLog) -> None:
    lane = ThreadHostLane(log)
    before = threading.active_count()
    begun, gate = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        gate.wait(10)

    running = lane.send(work, "running")
    left = lane.send(lambda: None, "left")
    assert begun.wait(10)
    threading.Timer(0.02, gate.set).start()
    lane.close()
    running.wait()
    late = lane.send(lambda: None, "late")
    assert isinstance(left.error, LinkClosedError)
    assert isinstance(late.error, LinkClosedError)
    assert threading.active_count() <= before
