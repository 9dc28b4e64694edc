"""One schema over files that disagree: plain types, their union, and arrays brought to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tightrun.io.jsonl import json_text


def plain(kind: pa.DataType) -> pa.DataType:
    """`kind` without the variants that only say how it is stored (large, view, dictionary, …)."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if is_list(kind):
        return pa.list_(plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, plain(field.type)) for field in kind.fields])
    return kind


def is_list(kind: pa.DataType) -> bool:
    """Whether values of `kind` are lists, of whatever layout."""
    layouts = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    views = (pa.types.is_list_view, pa.types.is_large_list_view)
    return any(is_layout(kind) for is_layout in (*layouts, *views))


def unify(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The narrowest plain type that holds values of both; None if they have none in common."""
    if a.equals(b):
        return a
    if pa.types.is_null(a) or pa.types.is_null(b):
        return b if pa.types.is_null(a) else a
    if _is_number(a) and _is_number(b):
        return _unify_numbers(a, b)
    if pa.types.is_list(a) and pa.types.is_list(b):
        inner = unify(a.value_type, b.value_type)
        return None if inner is None else pa.list_(inner)
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        return _unify_structs(a, b)
    if pa.types.is_timestamp(a) and pa.types.is_timestamp(b) and a.tz == b.tz:
        units = ("s", "ms", "us", "ns")
        return pa.timestamp(units[max(units.index(a.unit), units.index(b.unit))], a.tz)
    return None


def unify_all(kinds: Iterable[pa.DataType | None]) -> pa.DataType | None:
    """`unify` over any number of types, null the neutral one; None if one of them is None."""
    whole: pa.DataType | None = pa.null()
    for kind in kinds:
        whole = None if kind is None or whole is None else unify(whole, plain(kind))
    return whole


def settle(kind: pa.DataType) -> pa.DataType | None:
    """`kind` as it can be written: null becomes text; None if it holds an object without fields.

    Neither a column of no type nor an empty object survives Parquet and every reader of it.
    """
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        inner = settle(kind.value_type)
        return None if inner is None else pa.list_(inner)
    if pa.types.is_struct(kind):
        fields = [(field.name, settle(field.type)) for field in kind.fields]
        complete = fields and all(inner is not None for _, inner in fields)
        return pa.struct(fields) if complete else None
    return kind


def conform(array: pa.Array, kind: pa.DataType, as_json: bool = False) -> pa.Array:
    """`array` as `kind`, or each value as JSON text; raises ArrowInvalid for what does not fit."""
    if as_json:
        texts = [None if value is None else json_text(value) for value in array.to_pylist()]
        return pa.array(texts, pa.string())
    if array.type.equals(kind):
        return array
    try:
        # An integer column that meets a float one may round: the contract's union is double.
        return pc.cast(array, kind, safe=not pa.types.is_floating(kind))
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.array(array.to_pylist(), kind)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _unify_numbers(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if pa.types.is_floating(a) and pa.types.is_floating(b):
        return a if a.bit_width > b.bit_width else b
    if pa.types.is_floating(a) or pa.types.is_floating(b):
        return pa.float64()
    if pa.types.is_signed_integer(a) == pa.types.is_signed_integer(b):
        return a if a.bit_width > b.bit_width else b
    unsigned = a if pa.types.is_unsigned_integer(a) else b
    return None if unsigned.bit_width == 64 else pa.int64()


def _unify_structs(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    fields: dict[str, pa.DataType] = {field.name: field.type for field in a.fields}
    for field in b.fields:
        both: Any = unify(fields.get(field.name, pa.null()), field.type)
        if both is None:
            return None
        fields[field.name] = both
    return pa.struct(list(fields.items()))
