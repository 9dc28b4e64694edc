"""Parquet output: what a shard says about itself, and what it can hold."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.io.finished_rows import bad_row, good_row, made_job, write_all
from tightrun.io.outputs import OutputError
from tightrun.io.parquet_out import GROUP_ROWS


def test_the_footer_says_whose_rows_these_are_and_how_many(tmp_path: Path) -> None:
    rows = [good_row(i) for i in range(14)] + [bad_row(14)]
    writer = write_all(made_job(tmp_path), rows)
    metadata = pq.read_metadata(tmp_path / "data" / "train-00001.parquet").metadata
    assert {key: value for key, value in metadata.items() if key.startswith(b"tightrun.")} == {
        b"tightrun.fingerprint": writer.fingerprint.encode(),
        b"tightrun.first_row": b"10",
        b"tightrun.rows": b"5",
        b"tightrun.failed": b"1",
    }


def test_row_groups_are_of_about_a_thousand_rows_and_compressed(tmp_path: Path) -> None:
    rows = [good_row(i) for i in range(4_500)]
    write_all(made_job(tmp_path, output={"shard_rows": 10_000}), rows)
    metadata = pq.read_metadata(tmp_path / "data" / "train-00000.parquet")
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    assert all(GROUP_ROWS <= group.num_rows < 2 * GROUP_ROWS for group in groups[:-1])
    assert {groups[0].column(i).compression for i in range(groups[0].num_columns)} == {"ZSTD"}


def test_large_rows_make_smaller_groups(tmp_path: Path) -> None:
    columns = pa.table({"blob": [b"x" * 3_000_000] * 20})
    rows = [good_row(i) for i in range(20)]
    write_all(made_job(tmp_path, output={"shard_rows": 20}), rows, columns=columns)
    metadata = pq.read_metadata(tmp_path / "data" / "train-00000.parquet")
    assert metadata.num_row_groups >= 3


def test_a_column_parquet_cannot_hold_is_refused_before_the_run(tmp_path: Path) -> None:
    columns = pa.table({"span": pa.nulls(1, pa.month_day_nano_interval())})
    with pytest.raises(
        OutputError, match=r"column 'span' .* leave it out with output.keep_columns"
    ):
        write_all(made_job(tmp_path), [good_row(0)], columns=columns)


def test_nested_and_empty_values_survive(tmp_path: Path) -> None:
    kind = pa.struct([("a", pa.list_(pa.string())), ("b", pa.float32())])
    values: list[object] = [{"a": ["x", None], "b": 0.5}, None, {"a": [], "b": None}]
    columns = pa.table({"nested": pa.array(values, kind), "word": pa.array(["", None, "w"])})
    write_all(made_job(tmp_path), [good_row(i) for i in range(3)], columns=columns)
    table = pq.read_table(tmp_path / "data" / "train-00000.parquet")
    assert table["nested"].to_pylist() == values
    assert table["word"].to_pylist() == ["", None, "w"]
