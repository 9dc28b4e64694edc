"""The log of the lanes stays bounded; the compute lane knows waiting from computing."""

from __future__ import annotations

from itertools import count

import pytest

from tightrun.runtime.device import LaneSpan
from tightrun.runtime.lane_log import ComputeLane, LaneLog


def test_a_log_nobody_drains_keeps_the_newest_spans() -> None:
    log = LaneLog(kept=3)
    for i in range(10):
        log.enter(LaneSpan("compute", str(i), i, i + 1))
    assert [span.name for span in log.drain()] == ["7", "8", "9"]


def test_a_drained_span_does_not_come_again() -> None:
    log = LaneLog()
    log.enter(LaneSpan("compute", "a", 0, 1))
    assert len(log.drain()) == 1
    assert log.drain() == []


@pytest.fixture
def parts() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture
def lane(parts: list[tuple[str, int, int]]) -> ComputeLane[int]:
    """The clock goes on by one at every look."""
    ticks = count()
    return ComputeLane(lambda: next(ticks), lambda *part: parts.append(part))


def test_a_pause_inside_computing_is_left_out(
    lane: ComputeLane[int], parts: list[tuple[str, int, int]]
) -> None:
    def work() -> None:
        with lane.paused():
            pass

    lane.run("layer 0", work)
    assert parts == [("layer 0", 0, 1), ("layer 0", 2, 3)]


def test_computing_inside_computing_is_counted_once(
    lane: ComputeLane[int], parts: list[tuple[str, int, int]]
) -> None:
    lane.run("pass", lambda: lane.run("layer", lambda: None))
    assert parts == [("pass", 0, 1), ("layer", 2, 3), ("pass", 4, 5)]


def test_a_pause_outside_computing_is_nothing(
    lane: ComputeLane[int], parts: list[tuple[str, int, int]]
) -> None:
    with lane.paused():
        pass
    assert parts == []


def test_work_that_fails_has_been_computed_all_the_same(
    lane: ComputeLane[int], parts: list[tuple[str, int, int]]
) -> None:
    def divide() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lane.run("layer 0", divide)
    lane.run("layer 1", lambda: None)
    assert [name for name, _, _ in parts] == ["layer 0", "layer 1"]
