"""The journal of a shard: its finished rows, in the order they finished, until it is sealed.

The file begins with `MAGIC`; then come frames: length (uint32) and CRC-32 (uint32) of the body,
little endian, then the body: one byte that says its kind, and the payload. A frame that is cut
short or damaged ends the file for a reader: it is what a crash left of the last write.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from tightrun.core import Completion, RowError, Sample, TokenLogprob
from tightrun.io.durable import Disk

MAGIC = b"tightrun journal 1\n"
FINISHED_ROW = b"R"
_HEAD = struct.Struct("<II")


class Finished(NamedTuple):
    """A row that has come to its end, and when: seconds since the epoch."""

    completion: Completion
    created_s: int


class RowJournal:
    """The finished rows of one shard in a file, and 12 bytes of memory for each.

    `rows` are the row indices that belong to the shard. Not thread-safe.
    """

    def __init__(self, disk: Disk, path: Path, rows: range) -> None:
        self.path = path
        self.rows = rows
        self.missing = len(rows)
        self.failed = 0
        self._disk = disk
        self._file = disk.append(path)
        self._offsets = np.zeros(len(rows), dtype=np.int64)
        self._lengths = np.zeros(len(rows), dtype=np.uint32)
        self._dirty = True
        self._file.write(MAGIC)

    def append(self, finished: Finished) -> None:
        """Adds a row of the shard; each one once."""
        place = finished.completion.row_index - self.rows.start
        assert 0 <= place < len(self.rows), f"row {finished.completion.row_index} is elsewhere"
        assert not self._lengths[place], f"row {finished.completion.row_index} finished twice"
        frame = pack_frame(FINISHED_ROW, encode_row(finished))
        self._offsets[place] = self._file.size
        self._lengths[place] = len(frame)
        self._file.write(frame)
        self.missing -= 1
        self.failed += finished.completion.error is not None
        self._dirty = True

    def read(self, rows: range) -> list[Finished]:
        """Finished rows, in input order."""
        first = self.rows.start
        found = []
        for row in rows:
            frame = self._file.read_at(
                int(self._offsets[row - first]), int(self._lengths[row - first])
            )
            body = unpack_frame(frame)
            if body is None:
                raise OSError(f"{self.path}: row {row} does not read back as it was written")
            found.append(decode_row(body[1:]))
        return found

    def pieces(self, rows: range, max_rows: int, max_bytes: int) -> Iterator[range]:
        """`rows` cut so that a piece has at most so many rows and, if it can, so many bytes."""
        start = rows.start
        while start < rows.stop:
            stop = min(start + max_rows, rows.stop)
            lengths = self._lengths[start - self.rows.start : stop - self.rows.start]
            fit = int(np.searchsorted(np.cumsum(lengths, dtype=np.int64), max_bytes, side="right"))
            stop = start + max(1, min(fit, stop - start))
            yield range(start, stop)
            start = stop

    def sync(self) -> None:
        """Returns when every row so far is on the disk."""
        if self._dirty:
            self._file.sync()
            self._dirty = False

    def close(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        """Closes after a failure; what had reached the disk stays there."""
        self._file.abandon()

    def remove(self) -> None:
        """Removes the file: the shard is sealed."""
        self._file.abandon()
        self._disk.remove(self.path)


def pack_frame(kind: bytes, payload: bytes) -> bytes:
    """One frame around a payload."""
    body = kind + payload
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def unpack_frame(frame: bytes) -> bytes | None:
    """The body of a frame (kind and payload); None when it is cut short or damaged."""
    if len(frame) < _HEAD.size:
        return None
    length, crc = _HEAD.unpack_from(frame)
    body = frame[_HEAD.size : _HEAD.size + length]
    return body if body and len(body) == length and zlib.crc32(body) == crc else None


def read_frames(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """(kind, payload) of each good frame of a journal file, up to a torn or damaged one."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return
        while head := file.read(_HEAD.size):
            length = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else 0
            body = unpack_frame(head + file.read(length))
            if body is None:
                return
            yield body[:1], body[1:]


def encode_row(finished: Finished) -> bytes:
    """A finished row as the payload of a frame."""
    row = finished.completion
    error = row.error and (row.error.code, row.error.message)
    samples = [_sample_fields(sample) for sample in row.samples]
    fields = (row.row_index, row.id, row.prompt_tokens, row.seed, row.attempt)
    whole = (*fields, finished.created_s, error, samples)
    try:
        return orjson.dumps(whole)
    except TypeError:
        return orjson.dumps(_well_formed_all(whole))


def decode_row(payload: bytes) -> Finished:
    """What `encode_row` was given; a log-probability that was not finite is NaN."""
    row, id_, prompt_tokens, seed, attempt, created_s, error, samples = orjson.loads(payload)
    completion = Completion(
        row_index=row,
        id=id_,
        samples=tuple(_sample(fields) for fields in samples),
        prompt_tokens=prompt_tokens,
        seed=seed,
        attempt=attempt,
        error=RowError(*error) if error else None,
    )
    return Finished(completion, created_s)


def well_formed(text: str) -> str:
    """The text with lone surrogates replaced, as file names that are not UTF-8 have them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _well_formed_all(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, tuple | list):
        return [_well_formed_all(part) for part in value]
    return value


def _sample_fields(sample: Sample) -> tuple[Any, ...]:
    logprobs = None
    if sample.logprobs is not None:
        logprobs = [(t.token_id, t.token, t.logprob, t.top) for t in sample.logprobs]
    fields = (sample.text, sample.finish_reason, sample.stop_reason, sample.completion_tokens)
    return (*fields, logprobs)


def _sample(fields: list[Any]) -> Sample:
    text, finish_reason, stop_reason, completion_tokens, logprobs = fields
    tokens = None
    if logprobs is not None:
        tokens = tuple(
            TokenLogprob(token_id, token, _float(logprob), tuple(_alternative(a) for a in top))
            for token_id, token, logprob, top in logprobs
        )
    return Sample(text, finish_reason, stop_reason, completion_tokens, tokens)


def _alternative(fields: list[Any]) -> tuple[int, str, float]:
    token_id, token, logprob = fields
    return token_id, token, _float(logprob)


def _float(value: float | None) -> float:
    return float("nan") if value is None else value
