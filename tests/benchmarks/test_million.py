"""A small job through the replay: killed, gone on with, each row there once."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import million
from benchmarks.million import each_once, growth, measure, per_100k


def test_a_killed_replay_ends_with_each_row_once(tmp_path: Path) -> None:
    found = measure(400, tmp_path)
    assert found["each_row_once"]
    assert found["resume_s"] > 0
    assert 0 <= found["redone_rows"] <= 360
    assert len(found["rss_mib"]) >= 36
    json.dumps(found)


def test_a_row_that_is_missing_twice_or_wrong_is_seen(tmp_path: Path) -> None:
    texts = [f"SAY {n}" for n in range(3)]
    for ids, said, good in (
        (["r0", "r1", "r2"], texts, True),
        (["r0", "r1", "r1"], texts, False),
        (["r0", "r1"], texts[:2], False),
        (["r0", "r1", "r2"], ["SAY 0", "SAY 2", "SAY 1"], False),
    ):
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(pa.table({"id": ids, "text": said}), tmp_path / "data" / "part.parquet")
        assert each_once(tmp_path, 3) is good


def test_figures_come_from_the_samples() -> None:
    samples = [
        {"finished": 1000.0 * n, "seconds": 2.0 * n, "rss": 100.0 + (n == 7)} for n in range(10)
    ]
    assert per_100k(samples) == [200.0] * 9
    assert growth(samples) == pytest.approx(1.01)
    assert million.growth(samples[:7]) == 1.0
