"""trace.json.gz: what every link and the device did in some passes, for Perfetto and Chrome.

A Chrome trace is an array of events that may lack its closing bracket. The file is made of gzip
members, each written at once: of a run that is killed whole members stay, and they can be read.
"""

from __future__ import annotations

import gzip
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path

import orjson

from tightrun.core import StepRecord, TraceSpan
from tightrun.io.durable import OPEN_TO_UMASK, Disk, DiskFile

MOST_BYTES = 50_000_000
PASS_LANE = "pass"
LANES = (PASS_LANE, "h2d", "d2h", "disk", "compute", "cpu")
_MEMBER_BYTES = 256 * 1024
_MEMBER_SECONDS = 2.0
# zlib's cheap levels take half the time of its default and a tenth more room.
_LEVEL = 3
_MEMBERS_ON_THEIR_WAY = 4
_CLOSING_BYTES = 1024
_PID = 1000
_TRACKS_PER_LANE = 100
_RECENT = 64
# Of two that begin together the longer comes first: the viewers draw the other below it.
_START, _END = attrgetter("start_s"), attrgetter("end_s")


class TraceWriter:
    """Writes the trace of one run to `path`; what an earlier run left there goes first.

    `add` formats; compressing and writing happen beside the run. When the file has `most_bytes`
    it is closed off and later passes are left out. Not thread-safe. An error of the disk is
    raised by a later call.
    """

    def __init__(
        self,
        path: Path,
        run: int,
        disk: Disk | None = None,
        *,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.full = False
        self._path, self._run, self._disk = path, run, disk or Disk()
        self._most_bytes, self._clock = most_bytes, clock
        self._tracks = _Tracks()
        self._events: list[str] = []
        self._waiting_bytes = 0
        self._end_us = 0.0
        self._written_s = -_MEMBER_SECONDS
        self._file: DiskFile | None = None
        self._writes: deque[Future[None]] = deque()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tightrun-trace")
        self._closed = False
        self._disk.remove(path)

    def add(self, record: StepRecord, spans: Sequence[TraceSpan]) -> None:
        """Adds a pass: its row of the report on a lane of its own, and what the lanes did.

        Times of both are seconds since the run began. A pass without spans is left out.
        """
        if self.full or not spans:
            return
        if self._file is None:
            self._file = self._disk.append(self._path, OPEN_TO_UMASK)
            self._put(_about("process_name", 0, "name", f"tightrun run {self._run}"), "[\n")
        self._put_pass(record)
        for span in sorted(sorted(spans, key=_END, reverse=True), key=_START):
            self._put_span(span)
        self._end_us = 1e6 * (record.started_s + record.elapsed_s)
        now_s = self._clock()
        if self._waiting_bytes >= _MEMBER_BYTES or now_s - self._written_s >= _MEMBER_SECONDS:
            self._written_s = now_s
            self._hand_over("")

    def close(self) -> None:
        """Writes what is left and ends the array; closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._file is not None:
                self._hand_over("\n]\n")
            self._pool.shutdown()
            while self._writes:
                self._writes.popleft().result()
        finally:
            self._pool.shutdown()
            if self._file is not None:
                self._file.abandon()

    def _put_pass(self, record: StepRecord) -> None:
        end_s = record.started_s + record.elapsed_s
        name = f"pass {record.iteration} {record.phase}"
        args = orjson.dumps(asdict(record) | {"run": self._run}).decode()
        self._put_event(PASS_LANE, name, record.started_s, end_s, args)

    def _put_span(self, span: TraceSpan) -> None:
        took_s = span.end_s - span.start_s
        if span.nbytes and took_s > 0:
            rate = f',"bytes":{span.nbytes},"GB/s":{span.nbytes / took_s / 1e9:.3f}'
        else:
            rate = f',"bytes":{span.nbytes}' if span.nbytes else ""
        args = f'{{"pass":{span.iteration}{rate}}}'
        self._put_event(span.lane, span.name, span.start_s, span.end_s, args)

    def _put_event(self, lane: str, name: str, begin_s: float, end_s: float, args: str) -> None:
        """Puts the event, after the label of its track where that is new."""
        begin = round(begin_s * 1e9)
        end = max(begin, round(end_s * 1e9))
        track, labels = self._tracks.place(lane, begin, end)
        for label in labels:
            self._put(label, ",\n")
        quoted = orjson.dumps(name).decode()
        event = (
            f'{{"ph":"X","pid":{_PID},"tid":{track},"ts":{begin / 1000:.3f},'
            f'"dur":{(end - begin) / 1000:.3f},"name":{quoted},"args":{args}}}'
        )
        self._put(event, ",\n")

    def _put(self, event: str, before: str) -> None:
        self._events.append(before)
        self._events.append(event)
        self._waiting_bytes += len(event)

    def _hand_over(self, ending: str) -> None:
        text = "".join(self._events) + ending
        self._events, self._waiting_bytes = [], 0
        while self._writes and (
            self._writes[0].done() or len(self._writes) > _MEMBERS_ON_THEIR_WAY
        ):
            self._writes.popleft().result()
        self._writes.append(self._pool.submit(self._write, text))

    def _write(self, text: str) -> None:
        """In the writer's thread: one member, or the closing one where there is no more room."""
        assert self._file is not None
        if self.full:
            return
        member = gzip.compress(text.encode(), _LEVEL, mtime=0)
        if self._file.size + len(member) > self._most_bytes - _CLOSING_BYTES:
            self.full = True
            member = gzip.compress(f"{self._end_of_room()}\n]\n".encode(), _LEVEL, mtime=0)
        self._file.write(member)
        self._file.flush()

    def _end_of_room(self) -> str:
        text = f"later passes are left out: the trace takes {self._most_bytes:,} bytes at most"
        mark = {"ph": "i", "s": "g", "pid": _PID, "tid": 0, "ts": self._end_us, "name": text}
        return (",\n" if self._file and self._file.size else "[\n") + orjson.dumps(mark).decode()


class _Track:
    """One row of the viewer. On it two events may follow each other, or one hold the other."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._last = 0
        self._recent: deque[tuple[int, int]] = deque(maxlen=_RECENT)

    def takes(self, begin: int, end: int) -> bool:
        """Enters the event if the track can show it; times in nanoseconds."""
        if begin < self._last:
            for a, b in self._recent:
                apart = b <= begin or end <= a
                if not (apart or (a <= begin and end <= b) or (begin <= a and b <= end)):
                    return False
        self._last = max(self._last, end)
        self._recent.append((begin, end))
        return True


class _Tracks:
    """The rows of the viewer: one per lane, and further ones where a lane did things at once."""

    def __init__(self) -> None:
        self._lanes: dict[str, list[_Track]] = {lane: [] for lane in LANES}

    def place(self, lane: str, begin: int, end: int) -> tuple[int, Sequence[str]]:
        """The number of the track for an event, and the events that label it where it is new."""
        tracks = self._lanes.setdefault(lane, [])
        for track in tracks:
            if track.takes(begin, end):
                return track.number, ()
        number = _TRACKS_PER_LANE * (1 + list(self._lanes).index(lane)) + len(tracks)
        tracks.append(_Track(number))
        tracks[-1].takes(begin, end)
        name = lane if len(tracks) == 1 else f"{lane} {len(tracks)}"
        labels = [
            _about("thread_name", number, "name", name),
            _about("thread_sort_index", number, "sort_index", number),
        ]
        return number, labels


def _about(name: str, track: int, key: str, value: str | int) -> str:
    """An event that tells something of the process or of a track."""
    event = {"ph": "M", "pid": _PID, "tid": track, "name": name, "args": {key: value}}
    return orjson.dumps(event).decode()
