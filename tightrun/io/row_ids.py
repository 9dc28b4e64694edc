"""The id of a row, and the proof that no two rows of a job share one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tightrun.io.columns import IdColumns
from tightrun.io.input_types import BadRowError, InputError
from tightrun.io.jsonl import json_kind

# An id from the row and where it stands, for the rows whose hashes meet.
IdAt = Callable[[int], tuple[str, str]]


def row_id(row: Mapping[str, Any], columns: IdColumns) -> str | None:
    """The row's own id as text; None if it has none and need not have one.

    Raises BadRowError for an id that is missing but required, or neither text nor a number.
    """
    for name in columns.columns:
        value = row.get(name)
        if value is not None and value != "":
            return id_text(value, name)
    if columns.required:
        raise BadRowError(
            "bad_row", f"no id in the column {columns.columns[0]!r}; each row must have its own"
        )
    return None


def id_text(value: Any, name: str) -> str:
    """An id of any simple type as text: 7 becomes "7"."""
    if isinstance(value, str):
        return value
    if isinstance(value, BadRowError):
        raise value
    if isinstance(value, bytes | bytearray | list | dict | tuple):
        what = json_kind(value)
        raise BadRowError("bad_row", f"the id in {name!r} must be text or a number, not {what}")
    return str(value).lower() if isinstance(value, bool) else str(value)


def hash_id(text: str) -> int:
    """64 bits of an id, the same on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def hash_ids(texts: Iterable[str]) -> np.ndarray:
    """`hash_id` of many, uint64 [ids], in half the time."""
    begin = hashlib.blake2b(digest_size=8)
    digests = []
    for text in texts:
        digest = begin.copy()
        digest.update(text.encode())
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def fingerprint(id_hashes: np.ndarray) -> str:
    """A hash of the ids and their order."""
    hashes = np.ascontiguousarray(id_hashes, dtype="<u8")
    return hashlib.blake2b(hashes.view(np.uint8).data, digest_size=16).hexdigest()


def refuse_duplicates(id_hashes: np.ndarray, id_at: IdAt) -> None:
    """Raises InputError if two rows have the same id, with both places.

    Equal hashes are only a suspicion, so the ids themselves are read again, of those rows alone.
    """
    ordered = np.sort(id_hashes)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if not twice.size:
        return
    rows = np.flatnonzero(np.isin(id_hashes, twice))
    for group in _by_hash(rows, id_hashes[rows]):
        places: dict[str, str] = {}
        for row in group:
            name, place = id_at(int(row))
            if name in places:
                others = f", and {twice.size - 1:,} more ids stand twice" if twice.size > 1 else ""
                raise InputError(
                    f"the id {name!r:.200} stands at {places[name]} and again at {place}{others}; "
                    "ids must be unique in a job: change them, or choose another column with "
                    "input.id"
                )
            places[name] = place


def _by_hash(rows: np.ndarray, hashes: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.diff(hashes[order])) + 1
    return sorted(np.split(rows[order], starts), key=lambda group: int(group[0]))
