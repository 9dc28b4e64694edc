"""The Arrow type of a column of JSON values."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrun.io.json_types import MAX_SHAPES, Shape


def type_of(*values: Any) -> pa.DataType | None:
    shape = Shape()
    for value in values:
        shape.observe(value)
    return shape.arrow_type()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([None], pa.null()),
        (["a", None], pa.string()),
        ([1, 2], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([True, None], pa.bool_()),
        ([[1], [], None], pa.list_(pa.int64())),
        ([[]], pa.list_(pa.null())),
        ([{"a": 1}, {"b": "x"}], pa.struct([("a", pa.int64()), ("b", pa.string())])),
        ([{"a": [{"b": 1}]}], pa.struct([("a", pa.list_(pa.struct([("b", pa.int64())])))])),
    ],
)
def test_values_of_one_kind_have_a_type(values: list[Any], expected: pa.DataType) -> None:
    assert type_of(*values) == expected


@pytest.mark.parametrize(
    "values",
    [
        [1, "a"],
        [True, 1],
        [[1], 1],
        [{"a": 1}, [1]],
        [{"a": 1}, {"a": "x"}],
        [[1], ["a"]],
        [{}],
    ],
)
def test_values_without_a_common_type_have_none(values: list[Any]) -> None:
    assert type_of(*values) is None


def test_integers_that_no_64_bit_type_holds_have_no_type() -> None:
    assert type_of(2**63 - 1) == pa.int64()
    assert type_of(2**63) is None
    assert type_of(-(2**63) - 1) is None


def test_integers_that_a_double_would_round_do_not_mix_with_floats() -> None:
    assert type_of(2**53, 0.5) == pa.float64()
    assert type_of(2**53 + 1, 0.5) is None


def test_an_object_used_as_a_map_has_no_type_and_is_not_remembered() -> None:
    shape = Shape()
    for i in range(10 * MAX_SHAPES):
        shape.observe({f"key {i}": i})
    assert shape.arrow_type() is None
    assert shape.fields is not None
    assert len(shape.fields) <= MAX_SHAPES


def test_nesting_beyond_what_a_schema_should_hold_has_no_type() -> None:
    value: Any = 1
    for _ in range(150):
        value = [value]
    assert type_of(value) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(json_values))
def test_arrow_takes_all_values_under_their_type(values: list[Any]) -> None:
    kind = type_of(*values)
    if kind is not None:
        assert len(pa.array(values, kind)) == len(values)
