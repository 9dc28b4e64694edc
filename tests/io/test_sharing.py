"""A run that shares its output dies anywhere, and another one does what is left, each row once."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.io.faulty_disk import FaultyDisk, PowerCut
from tests.io.finished_rows import made_chunks, made_job, made_scan
from tests.io.machines import end_process, machine
from tests.io.resuming import ROWS, SHARD_ROWS, outcome, rows_in
from tightrun.io.durable import Disk
from tightrun.io.earlier_run import claim
from tightrun.io.lock import LostError, take
from tightrun.io.lock_kinds import locks_for
from tightrun.io.manifest import read_manifest
from tightrun.io.output_place import OutputError, OutputPlace
from tightrun.io.outputs import OutputWriter, RunInfo, WriteError
from tightrun.io.sharing import Sharing, lead_of

MOMENTS = 20


class Sharer:
    """A run that shares an output, process `number` of a machine; its disk may be a bad one."""

    def __init__(self, out: Path, number: int, disk: Disk | None = None) -> None:
        node = out.parent / f"node-{out.name}"
        here = machine(node, me=number)
        place, self._scan = OutputPlace.of(out), made_scan(ROWS)
        self.lock = take(
            place.live,
            locks_for("nfs4", here, Disk()),
            here.me,
            target=out,
            shared=True,
            first_run=number,
        )
        others = lead_of(self.lock, 0.0)
        assert others is not None
        joins = any(run.stage == "works" for run in others)
        if not joins:
            claim(place)
        self._job = made_job(out, output={"shard_rows": SHARD_ROWS, "format": "jsonl"})
        self.seen: list[int] = []
        self.writer = OutputWriter(
            self._job,
            self._scan,
            run_info=RunInfo(number=number),
            n=1,
            place=place,
            sharing=Sharing(self.lock, joins=joins),
            disk=disk,
        )
        self._chunks = list(made_chunks(self._scan, SHARD_ROWS))

    def shards(self) -> list[int]:
        """Does all that is free, and ends; returns the shards that it did."""
        done = []
        for rows in self.writer.to_read(threading.Event()):
            self.do(rows)
            done.append(rows.start // SHARD_ROWS)
        self.writer.close(final=True)
        self.lock.release()
        return done

    def do(self, rows: range) -> None:
        for chunk in self._chunks:
            if chunk.start in rows:
                for item in self.writer.admit(chunk):
                    self.seen.append(item.row_index)
                    self.writer.put(outcome(item.row_index))
        self.writer.flush()


def state(out: Path) -> str:
    manifest = read_manifest(OutputPlace.of(out).manifest)
    assert manifest is not None
    return manifest.state


def right(out: Path) -> None:
    """The output is whole, and nothing else is there."""
    assert [row["row_index"] for row in rows_in(out)] == list(range(ROWS))
    assert state(out) == "complete"
    place = OutputPlace.of(out)
    assert not place.journal.exists()
    assert not place.live.exists()
    assert list(out.rglob(".*.tmp")) == []


@pytest.mark.parametrize("beside", [False, True])
def test_a_death_at_any_moment_costs_nobody_a_row(tmp_path: Path, beside: bool) -> None:
    """Its successor comes afterwards, or was there before it."""
    disk = FaultyDisk()
    Sharer(tmp_path / "counting", 1, disk).shards()
    right(tmp_path / "counting")
    for moment in random.Random(beside).sample(range(disk.count), MOMENTS):
        out = tmp_path / str(moment)
        survivor = Sharer(out, 2) if beside else None
        # With a survivor beside it, it may come to its end before that moment.
        with suppress(PowerCut, OutputError, WriteError):
            Sharer(out, 1, FaultyDisk(moment, dies=True)).shards()
        end_process(tmp_path / f"node-{out.name}", 1)
        (survivor or Sharer(out, 3)).shards()
        right(out)


def test_a_run_that_was_taken_for_dead_seals_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = Sharer(out, 1)
    rows = next(iter(first.writer.to_read(threading.Event())))
    end_process(tmp_path / "node-out", 1)
    second = Sharer(out, 2)
    with pytest.raises(WriteError) as raised:
        first.do(rows)
    assert isinstance(raised.value.__cause__, LostError)
    assert second.shards() == [0, 1, 2, 3]
    right(out)
