"""Bytes of the columns of a Parquet file, read off its footer.

pyarrow tells them too, but ends the whole process where a footer contradicts itself (its metadata
of a column throws where nothing catches). Source: the Thrift compact protocol, and parquet.thrift.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tightrun.io.remote import RemoteFile

# A file ends with the length of its footer and a magic word.
_LENGTH_BYTES, _END_BYTES = 4, 8
# Most footers are shorter, so that one read has them.
_TAIL_BYTES = 1 << 16
_LONGEST_VARINT = 70
# Types of the compact protocol: what they take beside their own first byte.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
# Fields of parquet.thrift: FileMetaData, RowGroup, ColumnChunk, ColumnMetaData.
_ROW_GROUPS, _COLUMNS, _META_DATA, _PATH, _UNCOMPRESSED = 4, 1, 3, 3, 6


def column_bytes(path: Path | RemoteFile) -> list[dict[str, int]]:
    """Uncompressed bytes in each row group, by the dotted path of a column in the schema.

    Raises ValueError for a footer that is damaged.
    """
    try:
        footer = _Compact(_footer_of(path)).struct({_ROW_GROUPS})
        return [_of_group(group) for group in footer[_ROW_GROUPS]]
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("its footer is damaged") from error


def _footer_of(path: Path | RemoteFile) -> bytes:
    size = path.size if isinstance(path, RemoteFile) else path.stat().st_size
    tail = _read(path, max(0, size - _TAIL_BYTES), size)
    end = len(tail) - _END_BYTES
    length = int.from_bytes(tail[end : end + _LENGTH_BYTES], "little")
    if length > size - _END_BYTES:
        raise IndexError
    if length > end:
        tail, end = _read(path, size - _END_BYTES - length, size - _END_BYTES), length
    return tail[end - length : end]


def _read(path: Path | RemoteFile, start: int, stop: int) -> bytes:
    if isinstance(path, RemoteFile):
        return path.read(start, stop)
    with path.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


def _of_group(group: dict[int, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for chunk in group[_COLUMNS]:
        column = chunk[_META_DATA]
        path = b".".join(column[_PATH]).decode()
        found[path] = found.get(path, 0) + max(0, column[_UNCOMPRESSED])
    return found


class _Compact:
    """Values of the Thrift compact protocol, one after the other: structs are mappings by field."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self, wanted: set[int] | None = None) -> dict[int, Any]:
        """The fields of a struct, of which only the wanted ones are kept."""
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            kind, step = head & 15, head >> 4
            number = number + step if step else self._signed()
            value = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
            if wanted is None or number in wanted:
                found[number] = value
        return found

    def _value(self, kind: int) -> Any:
        if kind == _STRUCT:
            return self.struct()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind in (_LIST, _SET):
            return self._list()
        if kind == _MAP:
            return self._map()
        if kind == _DOUBLE:
            return self._bytes(8)
        return self._byte() if kind in (_TRUE, _FALSE, _BYTE) else self._signed()

    def _list(self) -> list[Any]:
        head = self._byte()
        count = head >> 4
        if count == 15:
            count = self._varint()
        return [self._value(head & 15) for _ in range(count)]

    def _map(self) -> None:
        count = self._varint()
        kinds = self._byte() if count else 0
        for _ in range(count):
            self._value(kinds >> 4)
            self._value(kinds & 15)

    def _bytes(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise IndexError
        self._at += count
        return self._data[self._at - count : self._at]

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _varint(self) -> int:
        found = shift = 0
        while True:
            byte = self._byte()
            found |= (byte & 127) << shift
            if byte < 128:
                return found
            shift += 7
            if shift > _LONGEST_VARINT:
                raise IndexError

    def _signed(self) -> int:
        found = self._varint()
        return (found >> 1) ^ -(found & 1)
