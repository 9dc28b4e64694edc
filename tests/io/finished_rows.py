"""Made-up jobs, inputs and finished rows for the tests of the output side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from tightrun.core import ERROR_CODES, Completion, Request, RowError, Sample, TokenLogprob
from tightrun.io.input_types import InputChunk, Scan
from tightrun.io.job import Job, load_job
from tightrun.io.outputs import OutputWriter, RunInfo

texts = st.text(st.characters(codec="utf-8"), max_size=20)
finite = st.floats(-100, 0, width=32)
logprobs = st.lists(
    st.builds(
        TokenLogprob,
        token_id=st.integers(0, 2**31 - 1),
        token=texts,
        logprob=finite,
        top=st.lists(st.tuples(st.integers(0, 2**31 - 1), texts, finite), max_size=3).map(tuple),
    ),
    max_size=4,
).map(tuple)
samples = st.builds(
    Sample,
    text=texts,
    finish_reason=st.sampled_from(["stop", "length"]),
    stop_reason=st.none() | texts,
    completion_tokens=st.integers(0, 2**31 - 1),
    logprobs=st.none() | logprobs,
)
errors = st.builds(RowError, code=st.sampled_from(ERROR_CODES), message=texts)


def completions(row: int = 0) -> st.SearchStrategy[Completion]:
    """Any finished row with that index, good or bad."""
    about = {
        "row_index": st.just(row),
        "id": texts,
        "prompt_tokens": st.integers(0, 2**31 - 1),
        "seed": st.none() | st.integers(-(2**63), 2**63 - 1),
        "attempt": st.integers(0, 2**15 - 1),
    }
    good = st.builds(
        Completion, samples=st.lists(samples, min_size=1, max_size=3).map(tuple), **about
    )
    return good | st.builds(Completion, error=errors, **about)


def good_row(row: int, text: str | None = None, n: int = 1, **sample: Any) -> Completion:
    """A row that came to `text`, by default one that names the row."""
    made = tuple(
        Sample(text or f"output {row}.{i}", "stop", completion_tokens=3 + i, **sample)
        for i in range(n)
    )
    return Completion(row, f"id-{row}", made, prompt_tokens=7, seed=1)


def bad_row(row: int, code: str = "bad_row") -> Completion:
    """A row that came to an error."""
    return Completion(row, f"id-{row}", error=RowError(code, f"row {row} is bad"))


def made_job(path: Path | str, *, model: str = "org/model", **sections: Any) -> Job:
    """A job with that output path; `output`, `sampling` and `input` add to the sections."""
    output = {"path": str(path), "shard_rows": 10, **sections.pop("output", {})}
    given = {"path": "in.jsonl", **sections.pop("input", {})}
    return load_job({"model": model, "input": given, "output": output, **sections})


def made_scan(rows: int, schema: pa.Schema | None = None, **fields: Any) -> Scan:
    """A scan of so many rows; the kept columns are `question` and `number` unless given."""
    if schema is None:
        schema = pa.schema([("question", pa.string()), ("number", pa.int64())])
    about = {"format": "jsonl", "fingerprint": f"ids of {rows}", "columns": tuple(schema.names)}
    hashes = np.arange(rows, dtype=np.uint64)
    lengths = np.zeros(rows, dtype=np.uint32)
    return Scan(rows, (), schema, lengths, hashes, **{**about, **fields})


def made_chunks(
    scan: Scan, shard_rows: int, columns: pa.Table | None = None, rows: int = 7
) -> Iterator[InputChunk]:
    """The input in chunks of at most `rows`, none of them across two shards."""
    start = 0
    while start < scan.rows:
        stop = min(start + rows, scan.rows, (start // shard_rows + 1) * shard_rows)
        span = range(start, stop)
        if columns is not None:
            table = columns.slice(start, len(span))
        else:
            values = {"question": [f"question {i}" for i in span], "number": list(span)}
            table = pa.table({name: values[name] for name in scan.schema.names}, scan.schema)
        items = tuple(Request(i, f"id-{i}", f"question {i}") for i in span)
        yield InputChunk(start, "in.jsonl", items, table, nbytes=100 * len(span))
        start = stop


def write_all(
    job: Job,
    rows: Sequence[Completion],
    *,
    scan: Scan | None = None,
    columns: pa.Table | None = None,
    n: int = 1,
    **options: Any,
) -> OutputWriter:
    """Writes these rows, in this order, as the whole output of the job, and closes it."""
    scan = scan or made_scan(len(rows), columns.schema if columns is not None else None)
    writer = OutputWriter(job, scan, n=n, **{"run_info": RunInfo(), **options})
    for chunk in made_chunks(scan, job.output.shard_rows, columns):
        writer.admit(chunk)
    for row in rows:
        writer.put(row)
    writer.close(final=True)
    return writer
