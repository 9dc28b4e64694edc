"""events.jsonl: a line for what happened, in the file as soon as it happened."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from pathlib import Path

from tests.io.finished_rows import bad_row, good_row, made_job, write_all
from tightrun.io.events import EventLog


def test_an_event_has_its_time_name_and_fields(tmp_path: Path) -> None:
    EventLog(tmp_path).event("loaded", seconds=1.5, path=tmp_path)
    line = json.loads((tmp_path / "events.jsonl").read_text())
    time = datetime.fromisoformat(line.pop("time"))
    assert line == {"event": "loaded", "seconds": 1.5, "path": str(tmp_path)}
    assert time.utcoffset() is not None


def test_lines_of_several_threads_do_not_mix(tmp_path: Path) -> None:
    log = EventLog(tmp_path)

    def write(number: int) -> None:
        for i in range(50):
            log.event("e", number=number, i=i, filling="x" * 2_000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert sorted((x["number"], x["i"]) for x in lines) == [
        (n, i) for n in range(4) for i in range(50)
    ]


def test_the_writer_tells_when_it_starts_seals_and_ends(tmp_path: Path) -> None:
    write_all(made_job(tmp_path), [good_row(i) for i in range(12)] + [bad_row(12)])
    text = (tmp_path / "_tightrun" / "events.jsonl").read_text()
    events = [json.loads(line) for line in text.splitlines()]
    assert [event["event"] for event in events] == ["started", "sealed", "sealed", "complete"]
    sealed = events[2]
    size = (tmp_path / "data" / "train-00001.parquet").stat().st_size
    assert (sealed["file"], sealed["first_row"]) == ("train-00001.parquet", 10)
    assert (sealed["rows"], sealed["failed"], sealed["bytes"]) == (3, 1, size)
