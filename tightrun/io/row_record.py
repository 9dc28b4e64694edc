"""A finished row as the record of a journal, and back."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import orjson

from tightrun.core import ERROR_CODES, Completion, RowError, Sample, TokenLogprob

FINISHED_ROW = b"R"
GOOD = 1
_CODES = {code: number for number, code in enumerate(ERROR_CODES, start=GOOD + 1)}
# What a scan of a journal needs of a row, so that it need not read the rest: index and result.
_SUMMARY = struct.Struct("<qB")
_ROW_BYTES = 200


class Finished(NamedTuple):
    """A row that has come to its end, and when: seconds since the epoch."""

    completion: Completion
    created_s: int


def memory_of(completion: Completion) -> int:
    """About how many bytes a finished row keeps until it is written."""
    nbytes = _ROW_BYTES
    for sample in completion.samples:
        nbytes += len(sample.text)
        if sample.logprobs:
            nbytes += len(sample.logprobs) * (1 + len(sample.logprobs[0].top)) * _ROW_BYTES
    return nbytes


def result_of(error: RowError | None) -> int:
    """A number for how a row ended: `GOOD`, or one of its error's code."""
    return GOOD if error is None else _CODES[error.code]


def error_code(result: int) -> str | None:
    """The code of the error that `result_of` was given; None for none."""
    return None if result == GOOD else ERROR_CODES[result - GOOD - 1]


def summary_of(payload: bytes) -> tuple[int, int]:
    """The row index and the result of an encoded row."""
    row, result = _SUMMARY.unpack_from(payload)
    return row, result


def encode_row(finished: Finished) -> bytes:
    """A finished row as the payload of a frame."""
    row = finished.completion
    error = row.error and (row.error.code, row.error.message)
    samples = [_sample_fields(sample) for sample in row.samples]
    fields = (row.row_index, row.id, row.prompt_tokens, row.seed, row.attempt)
    whole = (*fields, finished.created_s, error, samples)
    summary = _SUMMARY.pack(row.row_index, result_of(row.error))
    try:
        return summary + orjson.dumps(whole)
    except TypeError:
        return summary + orjson.dumps(_well_formed_all(whole))


def decode_row(payload: bytes) -> Finished:
    """What `encode_row` was given; a log-probability that was not finite is NaN."""
    whole = orjson.loads(payload[_SUMMARY.size :])
    row, id_, prompt_tokens, seed, attempt, created_s, error, samples = whole
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
