"""The power goes at any moment: the next run has every row that was said to be on the disk."""

from __future__ import annotations

import random
from array import array
from pathlib import Path
from typing import Any

import pytest

from tests.io.faulty_disk import PowerCut
from tests.io.finished_rows import made_scan
from tests.io.lossy_disk import LossyDisk
from tests.io.resuming import Run, rows_in
from tightrun.core import Written
from tightrun.io.outputs import WriteError

ROWS = 14
MOMENTS = 30
OPTIONS: dict[str, Any] = {"output": {"shard_rows": 5, "format": "jsonl"}}


def run(out: Path, disk: LossyDisk) -> tuple[set[int], int]:
    """A run until it ends or the power goes: which rows, and how many tokens of one, are safe."""
    safe: set[int] = set()
    tokens = 0
    drawn = [Written(ROWS - 1, 0, 9, array("i", [7]), at) for at in range(9)]
    try:
        one = Run(out, disk=disk, scan=made_scan(ROWS), **OPTIONS)
        one.writer.keep_unfinished(lambda known: drawn[known(ROWS - 1, 0, 9) :][:1])
        one.admit()
        done = list(range(ROWS - 1))
        random.Random(1).shuffle(done)
        for at in range(0, len(done), 3):
            one.finish(done[at : at + 3])
            one.writer.flush()
            safe |= set(done[at : at + 3])
            tokens += 1
        one.finish([ROWS - 1])
        one.writer.close(final=True)
    except (WriteError, PowerCut):
        pass  # whatever else goes wrong shows in what is left
    return safe, tokens


@pytest.mark.parametrize("name", ["out", "out.jsonl"])
def test_what_was_on_the_disk_is_not_run_again(tmp_path: Path, name: str) -> None:
    disk = LossyDisk()
    run(tmp_path / "whole" / name, disk)
    moments = random.Random(name).sample(range(disk.count), MOMENTS)
    for moment in moments:
        folder, left = tmp_path / f"{moment}", tmp_path / f"{moment}-left"
        folder.mkdir()
        cut = LossyDisk(moment)
        safe, tokens = run(folder / name, cut)
        cut.leave(folder, left)
        again = Run(left / name, scan=made_scan(ROWS), **OPTIONS)
        written = again.writer.earlier.begun.get(ROWS - 1, {})
        assert all(len(piece.tokens) >= tokens for piece in written.values())
        assert tokens == 0 or written or again.writer.rows_done == ROWS
        asked = again.whole()
        assert not safe & set(asked), f"power cut at {moment}"
        assert rows_in(left / name) == rows_in(tmp_path / "whole" / name)
        assert not list(left.rglob(".*.tmp"))
