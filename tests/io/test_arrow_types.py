"""Schemas that disagree, brought to one."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tightrun.io.arrow_types import conform, plain, settle, unify, unify_all

STRUCT = pa.struct([("a", pa.int32())])


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.uint8(), pa.uint32(), pa.uint32()),
        (pa.uint32(), pa.int8(), pa.int64()),
        (pa.int64(), pa.float32(), pa.float64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.null(), pa.string(), pa.string()),
        (pa.list_(pa.int32()), pa.list_(pa.float64()), pa.list_(pa.float64())),
        (pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("us")),
        (pa.int64(), pa.string(), None),
        (pa.bool_(), pa.int8(), None),
        (pa.uint64(), pa.int64(), None),
        (pa.timestamp("ms", "UTC"), pa.timestamp("ms"), None),
        (STRUCT, pa.struct([("a", pa.string())]), None),
        (pa.list_(pa.int32()), pa.int32(), None),
    ],
)
def test_the_union_holds_both_or_there_is_none(
    a: pa.DataType, b: pa.DataType, both: pa.DataType | None
) -> None:
    assert unify(a, b) == both
    assert unify(b, a) == both


def test_structs_merge_their_fields_in_the_order_they_came() -> None:
    merged = unify(STRUCT, pa.struct([("b", pa.string()), ("a", pa.int64())]))
    assert merged == pa.struct([("a", pa.int64()), ("b", pa.string())])


@pytest.mark.parametrize(
    ("stored", "meant"),
    [
        (pa.large_string(), pa.string()),
        (pa.string_view(), pa.string()),
        (pa.dictionary(pa.int8(), pa.large_string()), pa.string()),
        (pa.large_list(pa.large_string()), pa.list_(pa.string())),
        (pa.list_(pa.float32(), 4), pa.list_(pa.float32())),
        (pa.struct([("a", pa.large_binary())]), pa.struct([("a", pa.binary())])),
    ],
)
def test_how_a_value_is_stored_is_not_its_type(stored: pa.DataType, meant: pa.DataType) -> None:
    assert plain(stored) == meant
    assert unify_all([stored, meant]) == meant


def test_a_type_that_was_lost_stays_lost() -> None:
    assert unify_all([pa.int64(), None, pa.int64()]) is None
    assert unify_all([pa.int64(), pa.string(), pa.int64()]) is None


def test_columns_of_no_type_settle_as_text() -> None:
    assert settle(pa.null()) == pa.string()
    assert settle(pa.list_(pa.null())) == pa.list_(pa.string())
    assert settle(pa.struct([])) is None
    assert settle(pa.list_(pa.struct([]))) is None


@pytest.mark.parametrize(
    ("array", "kind", "expected"),
    [
        (pa.array([1, None]), pa.float64(), [1.0, None]),
        (pa.array([2**60 + 1]), pa.float64(), [2.0**60]),
        (pa.array(["a", "b"]).dictionary_encode(), pa.string(), ["a", "b"]),
        (pa.array([[None], None]), pa.list_(pa.string()), [[None], None]),
        (
            pa.array([{"a": 1}]),
            pa.struct([("b", pa.string()), ("a", pa.float64())]),
            [{"b": None, "a": 1.0}],
        ),
        (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), pa.list_(pa.int64()), [[1, 2]]),
    ],
)
def test_arrays_are_brought_to_the_union(
    array: pa.Array, kind: pa.DataType, expected: list[Any]
) -> None:
    assert conform(array, kind).to_pylist() == expected
    assert conform(array, kind).type == kind


def test_values_of_incompatible_types_become_json_text() -> None:
    assert conform(pa.array(["a", None]), pa.string(), as_json=True).to_pylist() == ['"a"', None]
    assert conform(pa.array([[1], []]), pa.string(), as_json=True).to_pylist() == ["[1]", "[]"]
