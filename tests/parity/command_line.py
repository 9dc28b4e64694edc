"""A job through the command line, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.parity.tiny_models import as_text
from tightrun.cli.main import main


def write_job(folder: Path, model: dict[str, str], prompts: list[list[int]], **parts: Any) -> Path:
    """job.yaml and its input; `parts` are further sections of the job file."""
    rows = folder / "in.jsonl"
    with rows.open("w") as file:
        for number, prompt in enumerate(prompts):
            file.write(json.dumps({"id": f"r{number}", "prompt": as_text(prompt)}) + "\n")
    job = {"model": model, "input": {"path": str(rows)}, "output": {"path": str(folder / "out")}}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job | parts))
    return path


def run(job: Path) -> int:
    """The exit code of `tightrun job.yaml`."""
    with pytest.raises(SystemExit) as ended:
        main([str(job), "--log-format", "plain"])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def rows_of(job: Path) -> list[dict[str, Any]]:
    """The output rows in input order."""
    table = pq.read_table(job.parent / "out" / "data").sort_by("row_index")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
