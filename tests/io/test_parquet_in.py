"""Parquet files, read in batches."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tests.io.input_jobs import write_parquet
from tightrun.io.input_types import InputError
from tightrun.io.parquet_in import ParquetTable
from tightrun.io.tables import BATCH_BYTES


def numbers(table: ParquetTable, start: int) -> list[int]:
    return [value for batch in table.batches(["n"], start) for value in batch["n"].to_pylist()]


@pytest.mark.parametrize("start", [0, 1, 99, 100, 101, 250, 999, 1000])
def test_reading_can_begin_at_any_row_of_any_row_group(tmp_path: Path, start: int) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"n": range(1000)}, row_group_size=100)
    assert numbers(ParquetTable(path), start) == list(range(start, 1000))


def test_row_groups_before_the_start_are_not_read(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "a.parquet", {"n": range(1000)}, row_group_size=500, compression="snappy"
    )
    damaged = bytearray(path.read_bytes())
    damaged[4:400] = bytes(396)
    path.write_bytes(damaged)
    table = ParquetTable(path)
    assert numbers(table, 500) == list(range(500, 1000))
    with pytest.raises(InputError, match=r"a\.parquet cannot be read"):
        numbers(table, 0)


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"a": [1], "a.b": [2], "c": [3]})
    names = [batch.schema.names for batch in ParquetTable(path).batches(["c", "a", "missing"])]
    assert names == [["a", "c"]]


def test_rows_are_counted_even_without_a_column(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"n": range(1500)})
    assert sum(batch.num_rows for batch in ParquetTable(path).batches([], 7)) == 1493


def test_batches_of_large_rows_have_few_rows(tmp_path: Path) -> None:
    texts = [str(i) * 200_000 for i in range(60)]
    path = write_parquet(tmp_path / "a.parquet", {"t": texts}, use_dictionary=False)
    sizes = [batch.nbytes for batch in ParquetTable(path).batches(["t"])]
    assert max(sizes) <= BATCH_BYTES + 400_000
    assert len(sizes) > 1


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path: Path, share: float) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"n": range(1000)})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"a\.parquet cannot be read as Parquet.*cut off"):
        ParquetTable(path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["q", "q"])
    path = write_parquet(tmp_path / "a.parquet", twice)
    with pytest.raises(InputError, match=r"two columns named 'q'; rename"):
        ParquetTable(path)
