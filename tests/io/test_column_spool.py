"""The spool of kept columns: what was admitted reads back with its rows and its source."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tightrun.io.column_spool import ColumnSpool
from tightrun.io.durable import Disk

SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.list_(pa.string()))])


def test_chunks_read_back_in_order_with_their_source(tmp_path: Path) -> None:
    spool = ColumnSpool(Disk(), tmp_path / "columns.arrow", SCHEMA)
    first = pa.table({"a": [1, 2], "b": [["x"], None]}, SCHEMA)
    second = pa.table({"a": [3], "b": [["y", "z"]]}, SCHEMA)
    spool.add(10, 2, "one.jsonl", first)
    spool.add(12, 1, "two.jsonl", second)
    read = list(spool.read())
    assert [(kept.start, kept.rows, kept.source_file) for kept in read] == [
        (10, 2, "one.jsonl"),
        (12, 1, "two.jsonl"),
    ]
    assert [kept.columns.to_pylist() for kept in read] == [first.to_pylist(), second.to_pylist()]


def test_rows_without_kept_columns_are_still_counted(tmp_path: Path) -> None:
    spool = ColumnSpool(Disk(), tmp_path / "columns.arrow", pa.schema([]))
    spool.add(0, 5, "in.jsonl", pa.table({}))
    (kept,) = spool.read()
    assert (kept.rows, kept.columns.num_columns) == (5, 0)
    assert kept.part(range(2, 4)).rows == 2


def test_a_part_has_the_columns_of_its_rows(tmp_path: Path) -> None:
    spool = ColumnSpool(Disk(), tmp_path / "columns.arrow", SCHEMA)
    spool.add(10, 4, "in.jsonl", pa.table({"a": [0, 1, 2, 3], "b": [None] * 4}, SCHEMA))
    (kept,) = spool.read()
    part = kept.part(range(12, 14))
    assert (part.start, part.rows, part.source_file) == (12, 2, "in.jsonl")
    assert part.columns.column("a").to_pylist() == [2, 3]


def test_a_table_in_several_pieces_is_one_chunk(tmp_path: Path) -> None:
    spool = ColumnSpool(Disk(), tmp_path / "columns.arrow", SCHEMA)
    piece = pa.table({"a": [1], "b": [["x"]]}, SCHEMA)
    spool.add(0, 2, "in.jsonl", pa.concat_tables([piece, piece]))
    (kept,) = spool.read()
    assert kept.columns.column("a").to_pylist() == [1, 1]


def test_a_source_name_that_is_not_unicode_is_mended(tmp_path: Path) -> None:
    spool = ColumnSpool(Disk(), tmp_path / "columns.arrow", SCHEMA)
    spool.add(0, 1, "in-\udcff.jsonl", pa.table({"a": [1], "b": [None]}, SCHEMA))
    (kept,) = spool.read()
    assert kept.source_file == "in-\N{REPLACEMENT CHARACTER}.jsonl"


def test_columns_of_another_type_are_our_mistake(tmp_path: Path) -> None:
    spool = ColumnSpool(Disk(), tmp_path / "columns.arrow", SCHEMA)
    with pytest.raises((TypeError, ValueError)):
        spool.add(0, 1, "in.jsonl", pa.table({"a": ["no number"], "b": [None]}))


def test_a_removed_spool_is_gone(tmp_path: Path) -> None:
    spool = ColumnSpool(Disk(), tmp_path / "columns.arrow", SCHEMA)
    spool.remove()
    assert list(tmp_path.iterdir()) == []
