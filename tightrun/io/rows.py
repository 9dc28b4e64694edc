"""Output rows as Arrow batches: what a row came to, then the kept columns of its input.

The schema is explicit and the same in every shard of a job, whatever the rows hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import pyarrow as pa

from tightrun.core import Completion, Sample, TokenLogprob
from tightrun.io.column_spool import Kept

_TOP = pa.struct([("token_id", pa.int32()), ("token", pa.string()), ("logprob", pa.float32())])
_TOKEN = pa.struct([*_TOP, ("top", pa.list_(_TOP))])
LOGPROBS = pa.list_(_TOKEN)
SAMPLE = pa.struct(
    [
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("stop_reason", pa.string()),
        ("completion_tokens", pa.int32()),
        ("logprobs", LOGPROBS),
    ]
)
ERROR = pa.struct([("code", pa.string()), ("message", pa.string())])
_RESULT = [
    pa.field("custom_id", pa.string()),
    pa.field("row_index", pa.int64()),
    pa.field("source_file", pa.string()),
    pa.field("text", pa.string()),
    pa.field("finish_reason", pa.string()),
    pa.field("stop_reason", pa.string()),
    pa.field("error", ERROR),
    pa.field("prompt_tokens", pa.int32()),
    pa.field("completion_tokens", pa.int32()),
    pa.field("seed", pa.int64()),
    pa.field("attempt", pa.int16()),
]
_NO_SAMPLE = Sample(text="", finish_reason="error")


class RowShape:
    """The columns of a job's output rows.

    `kept` are the kept input columns under the input's names. `samples` and `logprobs` say
    whether the job's rows have these columns.
    """

    def __init__(self, kept: pa.Schema, *, samples: bool, logprobs: bool) -> None:
        self._samples = samples
        self._logprobs = logprobs
        fields = list(_RESULT)
        if samples:
            fields.append(pa.field("samples", pa.list_(SAMPLE)))
        if logprobs:
            fields.append(pa.field("logprobs", LOGPROBS))
        self.schema: pa.Schema = pa.schema(fields + _renamed(kept, {f.name for f in fields}))

    @property
    def columns(self) -> dict[str, str]:
        """The names of the columns and their types, in words."""
        return {field.name: str(field.type) for field in self.schema}

    def batch(self, rows: Sequence[Completion], kept: Kept) -> pa.RecordBatch:
        """The output rows of `rows`; `kept` are the input columns of just these rows."""
        first = [_NO_SAMPLE if row.error else row.samples[0] for row in rows]
        columns: list[pa.Array] = [
            pa.array([row.id for row in rows], pa.string()),
            pa.array([row.row_index for row in rows], pa.int64()),
            pa.repeat(pa.scalar(kept.source_file, pa.string()), len(rows)),
            pa.array([None if s is _NO_SAMPLE else s.text for s in first], pa.string()),
            pa.array([sample.finish_reason for sample in first], pa.string()),
            pa.array([sample.stop_reason for sample in first], pa.string()),
            _errors(rows),
            pa.array([row.prompt_tokens for row in rows], pa.int32()),
            pa.array([sample.completion_tokens for sample in first], pa.int32()),
            pa.array([row.seed for row in rows], pa.int64()),
            pa.array([row.attempt for row in rows], pa.int16()),
        ]
        if self._samples:
            columns.append(_samples([None if row.error else row.samples for row in rows]))
        if self._logprobs:
            columns.append(_logprobs([sample.logprobs for sample in first]))
        columns += kept.columns.columns
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _renamed(kept: pa.Schema, results: set[str]) -> list[pa.Field]:
    """The kept fields, `input_` before a name that is taken until it is free.

    Metadata of the input (a pandas index, dataset features) does not describe the output.
    """
    taken = results | set(kept.names)
    fields = []
    for field in kept:
        name = field.name
        if name in results:
            while name in taken:
                name = f"input_{name}"
            taken.add(name)
        fields.append(pa.field(name, field.type))
    return fields


def _errors(rows: Sequence[Completion]) -> pa.Array:
    values = [
        {"code": row.error.code, "message": row.error.message} if row.error else None
        for row in rows
    ]
    return pa.array(values, ERROR)


def _samples(rows: Sequence[tuple[Sample, ...] | None]) -> pa.Array:
    flat = [sample for samples in rows for sample in samples or ()]
    values = [
        pa.array([sample.text for sample in flat], pa.string()),
        pa.array([sample.finish_reason for sample in flat], pa.string()),
        pa.array([sample.stop_reason for sample in flat], pa.string()),
        pa.array([sample.completion_tokens for sample in flat], pa.int32()),
        _logprobs([sample.logprobs for sample in flat]),
    ]
    structs = pa.StructArray.from_arrays(values, fields=list(SAMPLE))
    return pa.ListArray.from_arrays(_offsets(rows), structs)


def _logprobs(rows: Sequence[tuple[TokenLogprob, ...] | None]) -> pa.Array:
    """Built flat, level by level: a dictionary per token would be ten times slower."""
    tokens = [token for row in rows for token in row or ()]
    values = [
        pa.array([token.token_id for token in tokens], pa.int32()),
        pa.array([token.token for token in tokens], pa.string()),
        pa.array([token.logprob for token in tokens], pa.float32()),
        _alternatives([token.top for token in tokens]),
    ]
    structs = pa.StructArray.from_arrays(values, fields=list(_TOKEN))
    return pa.ListArray.from_arrays(_offsets(rows), structs)


def _alternatives(tops: Sequence[tuple[tuple[int, str, float], ...]]) -> pa.Array:
    flat = [alternative for top in tops for alternative in top]
    values = [
        pa.array([token_id for token_id, _, _ in flat], pa.int32()),
        pa.array([token for _, token, _ in flat], pa.string()),
        pa.array([logprob for _, _, logprob in flat], pa.float32()),
    ]
    structs = pa.StructArray.from_arrays(values, fields=list(_TOP))
    return pa.ListArray.from_arrays(_offsets(tops), structs)


def _offsets(lists: Sequence[Sequence[object] | None]) -> pa.Array:
    """Where each list begins in the flat values; null where there is no list."""
    ends = accumulate((len(items or ()) for items in lists), initial=0)
    starts = [None if items is None else start for items, start in zip(lists, ends, strict=False)]
    total = sum(len(items or ()) for items in lists)
    return pa.array([*starts, total], pa.int32())
