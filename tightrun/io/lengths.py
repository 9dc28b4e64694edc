"""Bytes of the prompt texts, before any of them is a prompt: what the plan estimates from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tightrun.io.arrow_types import is_list, plain


def text_bytes(value: Any) -> int:
    """The UTF-8 bytes of all text in a JSON value, the names of object fields left out."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    if isinstance(value, dict):
        return sum(map(text_bytes, value.values()))
    if isinstance(value, list):
        return sum(map(text_bytes, value))
    return 0


def array_bytes(array: pa.Array) -> np.ndarray:
    """The bytes of all text in each value of an array, int64 [rows]; 0 for a null."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return array_bytes(array.storage)
    if pa.types.is_dictionary(kind) or pa.types.is_string_view(kind):
        return array_bytes(array.cast(plain(kind)))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        lengths = pc.binary_length(array)
        if lengths.null_count:
            lengths = pc.fill_null(lengths, 0)
        # to_numpy would import pandas, which takes longer than many a scan.
        return np.from_dlpack(lengths).astype(np.int64)
    if is_list(kind):
        inner = array_bytes(pc.list_flatten(array))
        parents = np.from_dlpack(pc.list_parent_indices(array))
        return np.bincount(parents, weights=inner, minlength=len(array)).astype(np.int64)
    if pa.types.is_struct(kind):
        fields = [array_bytes(field) for field in array.flatten()]
        return np.sum(fields, axis=0) if fields else np.zeros(len(array), np.int64)
    return np.zeros(len(array), np.int64)
