"""Which Arrow type holds every JSON value seen in a column: inference over all lines, not a sample.

A shape only ever widens, so it can watch any number of values in constant memory. Values without
a common type (a number here, text there), objects used as maps with ever new keys, and integers
that no 64-bit type holds have no Arrow type: such a column is kept as JSON text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

MAX_SHAPES = 300
MAX_NESTING = 16

_INT64 = range(-(2**63), 2**63)
# A double holds every integer up to here; beyond, int and float have no common exact type.
_EXACT_IN_DOUBLE = range(-(2**53), 2**53 + 1)


class Shape:
    """All values seen at one place: which scalars, what is in the lists, what in the objects."""

    __slots__ = ("_count", "bools", "fields", "floats", "ints", "items", "mixed", "texts", "wide")

    def __init__(self, count: list[int] | None = None) -> None:
        self.bools = self.ints = self.wide = self.floats = self.texts = self.mixed = False
        self.items: Shape | None = None
        self.fields: dict[str, Shape] | None = None
        self._count = count if count is not None else [0]

    def observe(self, value: Any, depth: int = 0) -> None:
        """Widens the shape to hold `value` too."""
        kind = type(value)
        if kind is str:
            self.texts = True
        elif kind is int:
            self.ints = True
            if value not in _EXACT_IN_DOUBLE:
                self.wide = True
                self.mixed |= value not in _INT64
        elif kind is float:
            self.floats = True
        elif kind is bool:
            self.bools = True
        elif kind is list:
            self._observe_list(value, depth)
        elif kind is dict:
            self._observe_object(value, depth)

    def _observe_list(self, values: list[Any], depth: int) -> None:
        if self.items is None:
            self.items = self._child(depth)
        if not self.mixed:
            for value in values:
                self.items.observe(value, depth + 1)

    def _observe_object(self, values: Mapping[str, Any], depth: int) -> None:
        if self.fields is None:
            self.fields = {}
        if self.mixed:
            return
        for key, value in values.items():
            field = self.fields.get(key)
            if field is None:
                field = self._child(depth)
                if self.mixed:
                    return
                self.fields[key] = field
            field.observe(value, depth + 1)

    def _child(self, depth: int) -> Shape:
        self._count[0] += 1
        if depth >= MAX_NESTING or self._count[0] > MAX_SHAPES:
            self.mixed = True
        return Shape(self._count)

    def arrow_type(self) -> pa.DataType | None:
        """The type that holds every value seen (null if only nulls were); None if there is none."""
        lists, objects = self.items is not None, self.fields is not None
        numbers = self.ints or self.floats
        if self.mixed or self.bools + numbers + self.texts + lists + objects > 1:
            return None
        if self.items is not None:
            inner = self.items.arrow_type()
            return None if inner is None else pa.list_(inner)
        if self.fields is not None:
            return self._struct()
        if numbers:
            if self.floats:
                return None if self.wide else pa.float64()
            return pa.int64()
        if self.texts:
            return pa.string()
        return pa.bool_() if self.bools else pa.null()

    def _struct(self) -> pa.DataType | None:
        types = {key: field.arrow_type() for key, field in (self.fields or {}).items()}
        known = [pa.field(key, kind) for key, kind in types.items() if kind is not None]
        return pa.struct(known) if known and len(known) == len(types) else None
