"""A sample of rows: evenly spread, the same requests that a run reads, cheap to come by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.io.input_jobs import job_over, scan, write_lines, write_parquet
from tightrun.core import Request
from tightrun.io.job import Job
from tightrun.io.parquet_in import ParquetTable
from tightrun.io.row_sample import FEWEST_ROWS, evenly, sample_rows

ROWS = 5000
MANY = 1 << 30


def sampled(job: Job, count: int, rows: int | None = None, nbytes: int = MANY) -> list[Request]:
    found = scan(job)
    return [x.request for x in sample_rows(found, job, rows or found.rows, count, nbytes)]


def texts(rows: range | list[int]) -> list[str]:
    return [f"prompt {row}" for row in rows]


@pytest.fixture(params=["lines", "parquet", "small groups", "both"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """5,000 rows in one or two files, of one group or of many."""
    folder = tmp_path / "in"
    rows: list[Any] = [{"prompt": text} for text in texts(range(ROWS))]
    columns = {"prompt": texts(range(ROWS))}
    if request.param == "lines":
        write_lines(folder / "a.jsonl", rows)
    elif request.param == "both":
        write_lines(folder / "a.jsonl", rows[:3000])
        write_parquet(folder / "b.parquet", {"prompt": columns["prompt"][3000:]})
    else:
        size = ROWS if request.param == "parquet" else 64
        write_parquet(folder / "a.parquet", columns, row_group_size=size)
    return folder


@pytest.mark.parametrize("count", [1, 7, 100, ROWS])
def test_rows_are_spread_evenly_over_all_files(path: Path, count: int) -> None:
    job = job_over(path)
    asked = max(count, FEWEST_ROWS)
    assert [x.prompt for x in sampled(job, count)] == texts(evenly(ROWS, asked))


def test_every_row_of_a_small_input_is_taken(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", [{"prompt": text} for text in texts(range(5))])
    assert [x.prompt for x in sampled(job_over(path), 100)] == texts(range(5))


def test_rows_past_the_limit_are_left_out(path: Path) -> None:
    assert [x.prompt for x in sampled(job_over(path), 80, rows=200)] == texts(evenly(200, 80))


def test_of_long_rows_fewer_are_read(tmp_path: Path) -> None:
    rows = [{"prompt": "x" * 1000}] * 500
    path = write_lines(tmp_path / "in.jsonl", rows)
    assert len(sampled(job_over(path), 500, nbytes=100_000)) == 100
    assert len(sampled(job_over(path), 500, nbytes=1000)) == FEWEST_ROWS


def test_rows_that_cannot_be_executed_are_left_out(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", [{"prompt": "good"}, {"prompt": 3}, "{"])
    assert [x.prompt for x in sampled(job_over(path), 10)] == ["good"]


def test_a_row_comes_with_the_bytes_of_the_scan(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "in.parquet", {"prompt": ["a", "bcd"]})
    job = job_over(path)
    assert [x.nbytes for x in sample_rows(scan(job), job, 2, 2, MANY)] == [1, 3]


def test_groups_without_a_sampled_row_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(tmp_path / "in.parquet", {"prompt": texts(range(9000))}, row_group_size=9)
    job = job_over(path)
    found = scan(job)
    read: set[int] = set()
    whole = ParquetTable._group_batches

    def noted(table: Any, file: Any, group: int, *rest: Any) -> Any:
        read.add(group)
        return whole(table, file, group, *rest)

    monkeypatch.setattr(ParquetTable, "_group_batches", noted)
    assert len(list(sample_rows(found, job, found.rows, 100, MANY))) == 100
    assert len(read) == 100
