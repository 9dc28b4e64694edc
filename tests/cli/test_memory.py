"""What a long input costs: no more memory than a short one, and output from early on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cli.fake_engine import FakeEngine, factory
from tests.cli.jobs import Listener
from tightrun.cli.run import run_job
from tightrun.core import Request

ROWS = 40_000
ROW_BYTES = 5000
MOST_GROWTH = 100 * 2**20


def lines() -> Iterator[str]:
    for number in range(ROWS):
        kept = f"{number:05d}" * (ROW_BYTES // 5)
        yield json.dumps({"id": f"r{number}", "prompt": f"say {number}", "kept": kept}) + "\n"


@pytest.mark.slow
def test_memory_stays_flat_and_shards_come_early(tmp_path: Path) -> None:
    with (tmp_path / "in.jsonl").open("w") as file:
        file.writelines(lines())
    (tmp_path / "model").mkdir()
    shards = tmp_path / "out" / "data"
    process = psutil.Process()
    memory: dict[int, int] = {}
    first_shard: list[int] = []

    def before(request: Request) -> None:
        if request.row_index % 500 == 0:
            memory[request.row_index] = process.memory_info().rss
            if not first_shard and list(shards.glob("train-*")):
                first_shard.append(request.row_index)

    job = {
        "model": str(tmp_path / "model"),
        "input": {"path": str(tmp_path / "in.jsonl")},
        "output": {"path": str(tmp_path / "out"), "shard_rows": 5000},
    }
    run_job(job, view=Listener(), engine_factory=factory(FakeEngine(before=before)))
    warmed_up = memory[2000]
    assert max(memory.values()) - warmed_up < MOST_GROWTH
    assert first_shard[0] < ROWS // 2
