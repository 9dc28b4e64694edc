"""Writes the held-out rows as the sample job's shards, two Parquet and two JSONL, and the batch.

python -m sample_jobs.training.make_shards
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from sample_jobs.training.dates_data import SUFFIX, Row, held_out_rows

JOBS_FOLDER = Path(__file__).parents[1]
DATES_FOLDER = JOBS_FOLDER / "dates"
SHARDS = ("part-0.parquet", "part-1.jsonl", "part-2.parquet", "part-3.jsonl")
BATCH_FILE = JOBS_FOLDER / "batch" / "requests.jsonl"
BATCH_ROWS = 100


def write_shards(rows: Sequence[Row], folder: Path) -> None:
    """The rows in equal runs, one per name of `SHARDS`."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(rows) // len(SHARDS))
    for at, name in enumerate(SHARDS):
        part = [asdict(row) for row in rows[at * size : (at + 1) * size]]
        if name.endswith(".parquet"):
            pa.parquet.write_table(pa.Table.from_pylist(part), folder / name, compression="zstd")
        else:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in part)
            (folder / name).write_text("".join(lines), encoding="utf-8")


def write_batch(rows: Sequence[Row], path: Path) -> None:
    """The rows as an OpenAI batch file of `/v1/completions` requests."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            body = {
                "model": "dates/model",
                "prompt": row.sentence + SUFFIX,
                "max_tokens": 12,
                "temperature": 0,
            }
            line = {"custom_id": row.id, "method": "POST", "url": "/v1/completions", "body": body}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def main() -> None:
    rows = held_out_rows()
    write_shards(rows, DATES_FOLDER / "data")
    write_batch(rows[:BATCH_ROWS], BATCH_FILE)
    print(f"{len(rows):,} rows under {DATES_FOLDER / 'data'}, {BATCH_ROWS} in {BATCH_FILE}")


if __name__ == "__main__":
    main()
