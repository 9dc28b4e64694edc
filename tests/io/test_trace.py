"""The trace: Chrome's events in gzip members, of which a run that is killed leaves whole ones."""

from __future__ import annotations

import gzip
import json
import tempfile
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.io.faulty_disk import FaultyDisk
from tightrun.core import StepRecord, TraceSpan
from tightrun.io.durable import Disk
from tightrun.io.trace import LANES, TraceWriter

MB = 1_000_000


def step(iteration: int, started_s: float = 0.0, elapsed_s: float = 1.0) -> StepRecord:
    return StepRecord(1, iteration, "decode", started_s, elapsed_s, 2, 8, 0, 8, 512)


def span(lane: str, start_s: float, end_s: float, name: str = "x", nbytes: int = 0) -> TraceSpan:
    return TraceSpan(1, lane, name, start_s, end_s, nbytes)


def read(path: Path) -> list[dict[str, Any]]:
    """All events of a closed trace."""
    events: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))
    return events


def read_torn(path: Path) -> list[dict[str, Any]]:
    """The events of the whole members of a file, as viewers read them: the bracket may lack."""
    data, text = path.read_bytes(), b""
    while data:
        member = zlib.decompressobj(wbits=31)
        out = member.decompress(data)
        if not member.eof:
            break
        text, data = text + out, member.unused_data
    events: list[dict[str, Any]] = json.loads(text.rstrip().removesuffix(b"]") + b"]")
    return events


def spans_of(events: list[dict[str, Any]], lane: str) -> list[dict[str, Any]]:
    """The spans on the tracks of a lane."""
    tracks = {
        event["tid"]
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"].split()[0] == lane
    }
    return [event for event in events if event["ph"] == "X" and event["tid"] in tracks]


def written(path: Path, *passes: list[TraceSpan]) -> list[dict[str, Any]]:
    writer = TraceWriter(path, run=1)
    for iteration, spans in enumerate(passes):
        writer.add(step(iteration), spans)
    writer.close()
    return read(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.json.gz"


def test_a_span_has_its_time_in_microseconds_its_bytes_and_its_rate(path: Path) -> None:
    events = written(path, [span("h2d", 0.5, 0.75, "weights 3 0", 500 * MB)])
    (found,) = spans_of(events, "h2d")
    assert (found["ts"], found["dur"], found["name"]) == (500_000, 250_000, "weights 3 0")
    assert found["args"] == {"pass": 1, "bytes": 500 * MB, "GB/s": 2.0}


def test_a_span_that_moves_nothing_has_no_rate(path: Path) -> None:
    (found,) = spans_of(written(path, [span("compute", 0, 1, "layer 3")]), "compute")
    assert found["args"] == {"pass": 1}


def test_a_transfer_that_took_no_time_has_no_rate(path: Path) -> None:
    (found,) = spans_of(written(path, [span("d2h", 1, 1, "kv", 4096)]), "d2h")
    assert found["args"] == {"pass": 1, "bytes": 4096}
    assert found["dur"] == 0


def test_a_pass_is_on_a_lane_of_its_own_with_its_row_of_the_report(path: Path) -> None:
    writer = TraceWriter(path, run=7)
    writer.add(step(3, started_s=2.0, elapsed_s=0.5), [span("h2d", 2, 2.5)])
    writer.close()
    (found,) = spans_of(read(path), "pass")
    assert (found["name"], found["ts"], found["dur"]) == ("pass 3 decode", 2e6, 5e5)
    assert found["args"]["run"] == 7
    assert found["args"]["context_tokens"] == 512


def test_lanes_stand_below_each_other_in_their_order(path: Path) -> None:
    events = written(path, [span(lane, 0, 1) for lane in reversed(LANES[1:])])
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    order = {e["tid"]: e["args"]["sort_index"] for e in events if e["name"] == "thread_sort_index"}
    assert [names[track] for track in sorted(names, key=lambda t: order[t])] == [
        "pass",
        "h2d",
        "d2h",
        "disk",
        "compute",
        "cpu",
    ]
    assert sorted(names) == sorted(names, key=lambda track: order[track])


def test_the_process_is_named_after_the_run(path: Path) -> None:
    writer = TraceWriter(path, run=12)
    writer.add(step(0), [span("cpu", 0, 1)])
    writer.close()
    (named,) = [event for event in read(path) if event["name"] == "process_name"]
    assert named["args"] == {"name": "tightrun run 12"}


def test_a_lane_that_is_not_known_comes_after_the_others(path: Path) -> None:
    events = written(path, [span("stage 1", 0, 1), span("cpu", 0, 1)])
    names = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    tracks = [event["tid"] for event in events if event["name"] == "thread_name"]
    assert dict(zip(names, tracks, strict=True))["stage 1"] == max(tracks)


def test_two_things_a_lane_does_at_once_are_on_two_tracks(path: Path) -> None:
    events = written(path, [span("disk", 0, 2), span("disk", 1, 3), span("disk", 2, 4)])
    labels = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert labels == ["pass", "disk", "disk 2"]
    assert [e["ts"] for e in spans_of(events, "disk")] == [0, 1e6, 2e6]


def test_what_interrupts_a_transfer_is_drawn_below_it(path: Path) -> None:
    """A fetch that goes between two pieces of a slice is over first, and may be told of first."""
    events = written(path, [span("h2d", 2, 3, "kv")], [span("h2d", 1, 4, "weights")])
    assert len({event["tid"] for event in spans_of(events, "h2d")}) == 1


def test_of_two_that_begin_together_the_longer_is_written_first(path: Path) -> None:
    events = written(path, [span("h2d", 1, 2, "kv"), span("h2d", 1, 4, "weights")])
    assert [event["name"] for event in spans_of(events, "h2d")] == ["weights", "kv"]


TIMES = st.floats(min_value=0, max_value=1, allow_nan=False)
SPANS = st.lists(st.tuples(TIMES, TIMES).map(sorted), min_size=1, max_size=40)


@given(SPANS)
def test_no_track_has_spans_that_cut_across_each_other(times: list[list[float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        half = len(times) // 2
        passes = [[span("h2d", a, b) for a, b in part] for part in (times[:half], times[half:])]
        events = written(Path(folder) / "t", *[spans for spans in passes if spans])
    for track in {event["tid"] for event in spans_of(events, "h2d")}:
        open_ends: list[int] = []
        for begin, end in in_order(events, track):
            while open_ends and open_ends[-1] <= begin:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1]
            open_ends.append(end)


def in_order(events: list[dict[str, Any]], track: int) -> list[tuple[int, int]]:
    """Begin and end of a track's spans in whole nanoseconds, as a viewer goes through them."""
    found = [
        (round(1000 * e["ts"]), round(1000 * e["ts"]) + round(1000 * e["dur"]))
        for e in events
        if e["ph"] == "X" and e["tid"] == track
    ]
    return sorted(found, key=lambda times: (times[0], -times[1]))


def test_names_of_any_kind_are_json(path: Path) -> None:
    name = 'a "quoted" \\ näme\n'
    (found,) = spans_of(written(path, [span("cpu", 0, 1, name)]), "cpu")
    assert found["name"] == name


def test_an_earlier_trace_goes_when_a_run_begins(path: Path) -> None:
    written(path, [span("cpu", 0, 1)])
    TraceWriter(path, run=2).close()
    assert not path.exists()


def test_a_run_without_spans_leaves_no_file(path: Path) -> None:
    writer = TraceWriter(path, run=1)
    writer.add(step(0), [])
    writer.close()
    assert not path.exists()


def members(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    while data:
        member = zlib.decompressobj(wbits=31)
        yield member.decompress(data)
        assert member.eof
        data = member.unused_data


class Clock:
    """Time that only a test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_passes_are_written_within_two_seconds_and_short_ones_together(path: Path) -> None:
    clock = Clock()
    writer = TraceWriter(path, run=1, clock=clock)
    for iteration in range(41):
        clock.now_s = iteration / 10
        writer.add(step(iteration), [span("h2d", iteration, iteration + 1)])
    writer.close()
    assert [text.count(b'"name":"pass ') for text in members(path)] == [1, 20, 20, 0]


def test_what_is_written_before_a_kill_can_be_read(path: Path) -> None:
    clock = Clock()
    writer = TraceWriter(path, run=1, clock=clock)
    for iteration in range(10):
        clock.now_s += 2
        writer.add(step(iteration), [span("h2d", iteration, iteration + 1)])
    whole = path.with_name("whole")
    writer.close()
    whole.write_bytes(path.read_bytes())
    sizes = [len(gzip.compress(text, 3, mtime=0)) for text in members(path)]
    for passes in range(1, 11):
        path.write_bytes(whole.read_bytes()[: sum(sizes[:passes]) + 7])
        assert len(spans_of(read_torn(path), "pass")) == passes


def test_the_file_never_takes_more_than_it_may_and_says_where_it_ends(path: Path) -> None:
    most, clock = 20_000, Clock()
    writer = TraceWriter(path, run=1, most_bytes=most, clock=clock)
    for iteration in range(200):
        clock.now_s += 2
        names = [f"weights {iteration} {n * 7919 % 1000}" for n in range(50)]
        spans = [span("h2d", n, n + 1, name, n * 4096) for n, name in enumerate(names)]
        writer.add(step(iteration), spans)
    writer.close()
    assert most // 2 < path.stat().st_size <= most
    assert writer.full
    events = read(path)
    last = max(event["args"]["iteration"] for event in spans_of(events, "pass"))
    assert last < 199
    assert events[-1]["name"] == "later passes are left out: the trace takes 20,000 bytes at most"


def test_passes_that_were_kept_are_kept_whole(path: Path) -> None:
    clock = Clock()
    writer = TraceWriter(path, run=1, most_bytes=3000, clock=clock)
    for iteration in range(100):
        clock.now_s += 2
        writer.add(step(iteration), [span("h2d", n, n + 1) for n in range(10)])
    writer.close()
    events = read(path)
    assert len(spans_of(events, "pass")) > 1
    assert len(spans_of(events, "h2d")) == 10 * len(spans_of(events, "pass"))


@pytest.mark.parametrize("failing", range(2))
def test_a_disk_that_fails_is_an_error_at_the_end(path: Path, failing: int) -> None:
    clock = Clock()
    writer = TraceWriter(path, run=1, disk=FaultyDisk(failing, only="write"), clock=clock)

    def go_on() -> None:
        for _ in range(2):
            clock.now_s += 2
            writer.add(step(0), [span("h2d", 0, 1)])
        writer.close()

    with pytest.raises(OSError, match="No space left"):
        go_on()


def test_closing_twice_is_closing_once(path: Path) -> None:
    writer = TraceWriter(path, run=1, disk=Disk())
    writer.add(step(0), [span("h2d", 0, 1)])
    writer.close()
    size = path.stat().st_size
    writer.close()
    assert path.stat().st_size == size


def test_a_long_trace_is_in_the_order_in_which_it_came(path: Path) -> None:
    events = written(path, *[[span("h2d", n, n + 1)] for n in range(50)])
    starts = [event["ts"] for event in spans_of(events, "h2d")]
    assert all(a < b for a, b in pairwise(starts))
