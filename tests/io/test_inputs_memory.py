"""Host memory stays flat, however long the input is."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.io.input_jobs import job_over
from tightrun.io.inputs import read_chunks, scan_inputs

ROWS = 12_000
ALLOWED_BYTES = 12 << 20


@contextmanager
def python_peak() -> Iterator[list[int]]:
    peak: list[int] = []
    tracemalloc.start()
    try:
        yield peak
        peak.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module", params=["jsonl", "parquet"])
def large_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 60 MB: lines, or one row group."""
    path: Path = tmp_path_factory.mktemp("large") / f"a.{request.param}"
    if request.param == "jsonl":
        with path.open("w") as file:
            for i in range(ROWS):
                file.write(f'{{"id": "row {i}", "prompt": "{os.urandom(2500).hex()}"}}\n')
    else:
        table = pa.table(
            {
                "id": [f"row {i}" for i in range(ROWS)],
                "prompt": [os.urandom(2500).hex() for _ in range(ROWS)],
            }
        )
        pq.write_table(table, path, row_group_size=ROWS, compression="none", use_dictionary=False)
    assert path.stat().st_size > 60_000_000
    return path


def test_scanning_and_reading_hold_a_small_part_of_the_file(
    large_file: Path, tmp_path: Path
) -> None:
    job = job_over(large_file)
    # Once before: what Arrow imports on first use is no part of the input.
    next(read_chunks(scan_inputs(job, spool=tmp_path), job))
    arrow_before = pa.total_allocated_bytes()
    arrow_peak = rows = 0
    with python_peak() as peak:
        scan = scan_inputs(job, spool=tmp_path)
        arrow_scan = pa.total_allocated_bytes() - arrow_before
        for chunk in read_chunks(scan, job):
            rows += chunk.rows
            arrow_peak = max(arrow_peak, pa.total_allocated_bytes() - arrow_before)
    assert rows == ROWS
    assert arrow_scan < 1 << 20
    assert arrow_peak < ALLOWED_BYTES
    assert peak[0] < ALLOWED_BYTES


def test_the_scan_keeps_at_most_16_bytes_a_row(large_file: Path, tmp_path: Path) -> None:
    scan = scan_inputs(job_over(large_file), spool=tmp_path)
    arrays = [scan.id_hashes, scan.lengths]
    arrays += [array for s in scan.sources for array in (s.offsets, s.lines) if array is not None]
    assert sum(array.nbytes for array in arrays) <= 16 * ROWS
