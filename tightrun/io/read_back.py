"""The finished rows of a written shard, as they were before it was written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tightrun.core import Completion, RowError, Sample, TokenLogprob
from tightrun.io.openai_back import row_of_line
from tightrun.io.row_record import Finished
from tightrun.io.rows import LOGPROBS, SAMPLE
from tightrun.io.single_file import Part

_RESULT = ("custom_id", "row_index", "text", "finish_reason", "stop_reason", "error",
           "prompt_tokens", "completion_tokens", "seed", "attempt")  # fmt: skip
_BATCH_ROWS = 1_000

Row = Mapping[str, Any]


def rows_of_shard(
    part: Part, form: str, columns: Mapping[str, str], first_row: int
) -> Iterator[Finished]:
    """The rows of a shard of the format `form`, where it lies; `first_row` is its first index.

    `columns` are those of the output by the manifest: a kept column may have any other name.
    """
    if form == "openai-batch":
        for row, line in enumerate(_lines(part), start=first_row):
            yield row_of_line(line, row)
        return
    # Of two columns that some jobs have, the type tells the result from a kept column.
    types = {"samples": str(pa.list_(SAMPLE)), "logprobs": str(LOGPROBS)}
    more = [name for name, kind in types.items() if columns.get(name) == kind]
    read = _parquet_rows if form == "parquet" else _json_rows
    for values in read(part, [*_RESULT, *more]):
        yield Finished(_completion(values), 0)


def _parquet_rows(part: Part, names: list[str]) -> Iterator[Row]:
    with pq.ParquetFile(part.path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=names):
            yield from batch.to_pylist()


def _json_rows(part: Part, names: list[str]) -> Iterator[Row]:
    for line in _lines(part):
        yield {name: line[name] for name in names}


def _lines(part: Part) -> Iterator[dict[str, Any]]:
    done = 0
    with part.path.open("rb") as file:
        file.seek(part.start)
        while part.nbytes is None or done < part.nbytes:
            line = file.readline()
            if not line:
                return
            done += len(line)
            yield orjson.loads(line)


def _completion(row: Row) -> Completion:
    error = row["error"]
    samples: tuple[Sample, ...] = ()
    if error is None:
        first = {**row, "logprobs": row.get("logprobs")}
        samples = tuple(_sample(values) for values in row.get("samples") or [first])
    return Completion(
        row_index=row["row_index"],
        id=row["custom_id"],
        samples=samples,
        prompt_tokens=row["prompt_tokens"],
        seed=row["seed"],
        attempt=row["attempt"],
        error=RowError(error["code"], error["message"]) if error else None,
    )


def _sample(row: Row) -> Sample:
    tokens = row["logprobs"]
    return Sample(
        text=row["text"],
        finish_reason=row["finish_reason"],
        stop_reason=row["stop_reason"],
        completion_tokens=row["completion_tokens"],
        logprobs=None if tokens is None else tuple(map(_token, tokens)),
    )


def _token(token: Row) -> TokenLogprob:
    top = tuple((t["token_id"], t["token"], _number(t["logprob"])) for t in token["top"])
    return TokenLogprob(token["token_id"], token["token"], _number(token["logprob"]), top)


def _number(value: float | None) -> float:
    """JSON has no word for a number that is not finite."""
    return math.nan if value is None else value
