"""Which format a job's shards have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tightrun.io.input_types import Scan
from tightrun.io.jsonl_out import JsonlFormat
from tightrun.io.openai_out import OpenAiFormat
from tightrun.io.parquet_out import ParquetFormat
from tightrun.io.rows import RowShape
from tightrun.io.shard import ShardFormat

if TYPE_CHECKING:
    from tightrun.io.job import Job


def format_of(job: Job, scan: Scan, n: int) -> ShardFormat:
    """The format of the job's shards; `n` is the most samples of a row.

    Raises OutputError for kept columns that the format cannot hold.
    """
    if job.output.format == "openai-batch":
        return OpenAiFormat(job.model.path)
    # The schema must not depend on what the rows hold: the column is there if a row might ask.
    asked = job.sampling.logprobs > 0 or "sampling_params" in scan.columns
    asked = asked or scan.format in ("openai-batch", "mixed")
    shape = RowShape(scan.schema, samples=n > 1, logprobs=asked)
    form = ParquetFormat if job.output.format == "parquet" else JsonlFormat
    return form(scan.schema, shape)
