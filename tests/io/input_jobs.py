"""Jobs over small inputs, and what comes of them: the ground the input tests stand on."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tightrun.core import Completion, Request
from tightrun.io.inputs import InputChunk, Scan, read_chunks, scan_inputs
from tightrun.io.job import Job, load_job


def job_over(
    path: Path | str | list[str] | None,
    *,
    output: Mapping[str, Any] | None = None,
    sampling: Mapping[str, Any] | None = None,
    model: str = "owner/model",
    **fields: Any,
) -> Job:
    """A job over `path`, its output beside it; `fields` are further keys of `input:`."""
    where = {} if path is None else {"path": path if isinstance(path, list) else str(path)}
    out = "/nonexistent/out" if path is None or not isinstance(path, Path) else str(path) + ".out"
    return load_job(
        {
            "model": model,
            "input": {**where, **fields},
            "sampling": dict(sampling or {}),
            "output": {"path": out, **(output or {})},
        }
    )


def write_lines(path: Path, lines: Iterable[Any]) -> Path:
    """A file of lines: text as it is, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


def write_parquet(path: Path, columns: Mapping[str, Any] | pa.Table, **options: Any) -> Path:
    """A Parquet file of the columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    pq.write_table(table, path, **options)
    return path


def scan(job: Job, spool: Path | None = None, stdin: bytes | None = None) -> Scan:
    """The scan of the job's input; copies go beside its output."""
    folder = spool or Path(job.output.path) / "spool"
    return scan_inputs(job, spool=folder, stdin=None if stdin is None else io.BytesIO(stdin))


def chunks(job: Job, **where: Any) -> list[InputChunk]:
    """All chunks of the job's input."""
    return list(read_chunks(scan(job), job, **where))


def items(job: Job, **where: Any) -> list[Request | Completion]:
    """A request or a failed completion for every row."""
    return [item for chunk in chunks(job, **where) for item in chunk.items]


def kept(job: Job) -> list[dict[str, Any]]:
    """The kept columns of every row."""
    return [row for chunk in chunks(job) for row in chunk.columns.to_pylist()]


def prompts(job: Job) -> list[Any]:
    """The prompt of every row; for a row without one, the code of its error."""
    found: list[Any] = []
    for item in items(job):
        found.append(item.prompt if isinstance(item, Request) else error_of(item)[0])
    return found


def error_of(item: Request | Completion) -> tuple[str, str]:
    """The code and message of a failed row."""
    assert isinstance(item, Completion), f"{item} did not fail"
    assert item.error is not None
    return item.error.code, item.error.message
