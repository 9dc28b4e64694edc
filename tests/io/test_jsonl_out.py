"""JSON lines output: the names and values of the Parquet rows, as far as JSON can say them."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.io.finished_rows import bad_row, good_row, made_job, write_all


def lines_of(folder: Path, columns: pa.Table | None = None, **options: Any) -> list[dict[str, Any]]:
    rows = [good_row(i) for i in range(2)]
    write_all(made_job(folder, output={"format": "jsonl"}), rows, columns=columns, **options)
    text = (folder / "data" / "train-00000.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_has_the_same_names_and_values_as_a_parquet_row(tmp_path: Path) -> None:
    rows = [good_row(0, n=2), bad_row(1), good_row(2, "\u2028 \N{SNOWMAN}\n", n=2)]
    write_all(made_job(tmp_path / "j", output={"format": "jsonl"}), rows, n=2)
    write_all(made_job(tmp_path / "p"), rows, n=2)
    lines = (tmp_path / "j" / "data" / "train-00000.jsonl").read_bytes().split(b"\n")
    table = pq.read_table(tmp_path / "p" / "data" / "train-00000.parquet")
    assert [json.loads(line) for line in lines if line] == table.to_pylist()
    assert list(json.loads(lines[0])) == table.schema.names


@pytest.mark.parametrize(
    ("value", "kind", "written"),
    [
        (datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), pa.timestamp("us", "UTC"), "2024-05-06T07:08"),
        (date(2024, 5, 6), pa.date32(), "2024-05-06"),
        (b"\x01\xff", pa.binary(), "01ff"),
        (Decimal("1.50"), pa.decimal128(5, 2), "1.50"),
        (timedelta(seconds=90), pa.duration("s"), "0:01:30"),
        (float("nan"), pa.float64(), None),
        (2**64 - 1, pa.uint64(), 2**64 - 1),
        ([{"a": [1, None]}], pa.list_(pa.struct([("a", pa.list_(pa.int8()))])), [{"a": [1, None]}]),
        ([("k", 1)], pa.map_(pa.string(), pa.int8()), [["k", 1]]),
    ],
)
def test_values_that_json_lacks_are_written_as_text(
    tmp_path: Path, value: object, kind: pa.DataType, written: object
) -> None:
    columns = pa.table({"x": pa.array([value, None], kind)})
    found = lines_of(tmp_path, columns)[0]["x"]
    assert (found[: len(written)] if isinstance(written, str) else found) == written


def test_a_date_beyond_pythons_calendar_is_written_as_text(tmp_path: Path) -> None:
    columns = pa.table({"x": pa.array([5_000_000, 0], pa.int32()).cast(pa.date32())})
    assert [line["x"] for line in lines_of(tmp_path, columns)] == ["15659-07-15", "1970-01-01"]
