"""The types of all columns of the input, widened source by source into one schema."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa

from tightrun.io.arrow_types import settle, unify_all
from tightrun.io.input_types import InputError
from tightrun.io.json_types import Shape

MAX_COLUMNS = 2000


class SchemaUnion:
    """Every column's name, and the types of those that `keeps` says are kept; both bounded."""

    def __init__(self, keeps: Callable[[str], bool]) -> None:
        self._keeps = keeps
        self._shapes: dict[str, Shape | None] = {}
        self._kinds: dict[str, dict[pa.DataType, str]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """All names seen, in the order they came."""
        return tuple(self._shapes)

    def observe(self, row: Mapping[str, Any]) -> None:
        """Takes in one JSON row."""
        shapes = self._shapes
        for name, value in row.items():
            if name not in shapes:
                self._add(name)
            shape = shapes[name]
            if shape is not None:
                shape.observe(value)

    def observe_schema(self, schema: Iterable[pa.Field], source: str) -> None:
        """Takes in the schema of the table `source`."""
        for field in schema:
            if field.name not in self._shapes:
                self._add(field.name)
            self._kinds.setdefault(field.name, {}).setdefault(field.type, source)

    def table_types(self, name: str) -> Mapping[pa.DataType, str]:
        """The types the column has in tables, each with the first table it was seen in."""
        return self._kinds.get(name, {})

    def schema(self, names: Iterable[str]) -> tuple[pa.Schema, frozenset[str]]:
        """The schema of the kept columns `names`, and those of them that become JSON text."""
        fields, as_json = [], set()
        for name in names:
            shape = self._shapes[name]
            assert shape is not None, f"{name} is kept, so its type was watched"
            kind = unify_all([shape.arrow_type(), *self._kinds.get(name, ())])
            kind = None if kind is None else settle(kind)
            if kind is None:
                as_json.add(name)
            fields.append(pa.field(name, pa.string() if kind is None else kind))
        return pa.schema(fields), frozenset(as_json)

    def _add(self, name: str) -> None:
        if len(self._shapes) >= MAX_COLUMNS:
            raise InputError(
                f"the input has more than {MAX_COLUMNS:,} columns (now {name!r:.60}); are names "
                "used as data? Put such values under one column, as an object"
            )
        self._shapes[name] = Shape() if self._keeps(name) else None
