"""The report tables: a row per pass and a row per run, as the contract names them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.io.faulty_disk import FaultyDisk
from tightrun.core import RunRecord, StepRecord
from tightrun.io.output_place import OutputPlace
from tightrun.io.reports import STEPS_PER_FILE, ReportWriter, read_runs, read_steps

STEP = StepRecord(1, 0, "mixed", 0.5, 0.25, 2, 3, 4, 5, 6, recompute_ratio=0.5)
RUN = RunRecord(1, "2025-01-01T00:00:00Z", "b", 3, 10, 1, 20, 30, 1.5, 20.0, 25.0, "h2d", 0.8)


def step_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "steps").iterdir())


def test_steps_have_the_columns_of_the_contract(tmp_path: Path) -> None:
    writer = ReportWriter(tmp_path, run=1)
    writer.step(STEP)
    writer.close()
    schema = pq.read_schema(tmp_path / "steps" / "run-0001-00000.parquet")
    assert ", ".join(schema.names) == (
        "run, iteration, phase, started_s, elapsed_s, batches, sequences, prefill_tokens, "
        "decode_tokens, context_tokens, recompute_ratio, recompute_form, weight_bytes_in, "
        "kv_bytes_in, kv_bytes_out, disk_bytes, compute_s, h2d_s, d2h_s, disk_s, idle_s, "
        "predicted_s, bound_s"
    )
    types = {name: str(schema.field(name).type) for name in ("run", "phase", "bound_s")}
    assert types == {"run": "int64", "phase": "string", "bound_s": "double"}


def test_a_pass_is_the_writer_s_run_s_whatever_the_engine_calls_it(tmp_path: Path) -> None:
    writer = ReportWriter(tmp_path, run=3)
    writer.step(STEP)
    writer.close()
    table = pq.read_table(tmp_path / "steps" / "run-0003-00000.parquet")
    assert table.column("run").to_pylist() == [3]


def test_runs_have_the_columns_of_the_contract(tmp_path: Path) -> None:
    ReportWriter(tmp_path, run=1).run(RUN)
    schema = pq.read_schema(tmp_path / "runs" / "run-0001.parquet")
    assert ", ".join(schema.names) == (
        "run, started, ended, exit_code, rows, failed, input_tokens, output_tokens, seconds, "
        "output_tokens_per_s, planned_output_tokens_per_s, binding, bound_share, "
        "h2d_bytes_per_s, d2h_bytes_per_s, disk_bytes_per_s, flops_per_s, idle_s, "
        "peak_gpu_bytes, peak_cpu_bytes"
    )


def test_a_table_is_closed_after_five_minutes(tmp_path: Path) -> None:
    now = [0.0]
    writer = ReportWriter(tmp_path, run=1, clock=lambda: now[0])
    for now[0] in (0.0, 299.0, 300.0, 301.0):
        writer.step(STEP)
    writer.close()
    assert step_files(tmp_path) == ["run-0001-00000.parquet", "run-0001-00001.parquet"]
    counts = [pq.read_metadata(tmp_path / "steps" / name).num_rows for name in step_files(tmp_path)]
    assert counts == [3, 1]


def test_a_table_is_closed_after_ten_thousand_passes(tmp_path: Path) -> None:
    writer = ReportWriter(tmp_path, run=1)
    for _ in range(STEPS_PER_FILE + 1):
        writer.step(STEP)
    writer.close()
    counts = [pq.read_metadata(tmp_path / "steps" / name).num_rows for name in step_files(tmp_path)]
    assert counts == [10_000, 1]


def test_steps_of_all_runs_read_back_in_order(tmp_path: Path) -> None:
    report = OutputPlace.of(tmp_path).report
    for run in (2, 1):
        writer = ReportWriter(report, run)
        for iteration in range(2):
            writer.step(replace(STEP, run=run, iteration=iteration))
        writer.close()
    steps = read_steps(tmp_path)
    assert list(zip(*(steps[name].to_pylist() for name in ("run", "iteration")), strict=True)) == [
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]


@pytest.mark.parametrize("name", ["out", "out.jsonl"])
def test_runs_read_back_as_they_were(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    records = [RUN, replace(RUN, run=2, exit_code=0)]
    for record in records:
        ReportWriter(OutputPlace.of(out).report, record.run).run(record)
    assert read_runs(out) == records


def test_an_output_without_report_has_no_rows(tmp_path: Path) -> None:
    assert read_runs(tmp_path) == []
    assert read_steps(tmp_path).num_rows == 0


def test_a_table_that_cannot_be_written_is_an_error_at_the_end(tmp_path: Path) -> None:
    writer = ReportWriter(tmp_path, run=1, disk=FaultyDisk(0, only="write"))
    writer.step(STEP)
    with pytest.raises(OSError, match="No space left"):
        writer.close()
    assert step_files(tmp_path) == []


def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    writer = ReportWriter(tmp_path, run=1)
    writer.step(STEP)
    writer.close()
    writer.close()
    assert len(step_files(tmp_path)) == 1
