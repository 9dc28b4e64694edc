"""The bytes of columns, as pyarrow tells them, from footers that it may not be asked about."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.io.input_jobs import job_over, scan
from tests.io.test_parquet_fuzz import valid_file
from tightrun.io.inputs import InputError
from tightrun.io.parquet_footer import column_bytes


@pytest.mark.parametrize("columns", [1, 14, 15, 40])
def test_they_are_what_pyarrow_says(tmp_path: Path, columns: int) -> None:
    rows = {f"c{n}": [f"{'x' * n}{row}" for row in range(50)] for n in range(columns)}
    deep = {"deep": [[{"a": row, "b": {"c": "y" * row}}] for row in range(50)]}
    pq.write_table(pa.table(rows | deep), tmp_path / "a.parquet", row_group_size=7)
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    found = column_bytes(tmp_path / "a.parquet")
    assert len(found) == metadata.num_row_groups == 8
    for group, sizes in enumerate(found):
        row_group = metadata.row_group(group)
        told = [row_group.column(i) for i in range(row_group.num_columns)]
        assert sizes == {x.path_in_schema: x.total_uncompressed_size for x in told}


def test_a_file_without_rows_has_no_groups_or_empty_ones(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), tmp_path / "a.parquet")
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    assert len(column_bytes(tmp_path / "a.parquet")) == metadata.num_row_groups


def test_a_footer_longer_than_the_usual_read_is_read_whole(tmp_path: Path) -> None:
    rows = {f"a_rather_long_name_of_a_column_{n}": [n] * 40 for n in range(60)}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet", row_group_size=2)
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    assert metadata.serialized_size > 1 << 16
    found = column_bytes(tmp_path / "a.parquet")
    assert [len(group) for group in found] == [60] * 20


def test_a_column_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    path.write_bytes(valid_file(path).replace(b"custom_id", b"cu\x82tom_id"))
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        scan(job_over(path), tmp_path / "spool")
