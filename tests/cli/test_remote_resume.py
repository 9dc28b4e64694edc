"""A job over remote input that is started again: the same content, or told what changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import orjson
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.cli.fake_engine import FakeEngine, factory
from tests.cli.jobs import Listener, job_of
from tightrun.cli.run import RunOptions, run_job
from tightrun.io.outputs import OutputError

URL = "memory://bucket/in.jsonl"


@pytest.fixture(autouse=True)
def empty_store() -> Iterator[None]:
    MemoryFileSystem.store.clear()
    yield
    MemoryFileSystem.store.clear()


def put(rows: list[dict[str, str]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    fsspec.filesystem("memory").pipe_file("/bucket/in.jsonl", text.encode())


def run(job: dict[str, Any], **options: Any) -> Any:
    flags = RunOptions(**options)
    return run_job(job, flags, view=Listener(), engine_factory=factory(FakeEngine()))


def test_changed_input_is_told_with_its_name(tmp_path: Path) -> None:
    put([{"id": "a", "prompt": "one"}, {"id": "b", "prompt": "two"}])
    job = job_of(tmp_path, [], input={"path": URL})
    assert run(job, limit=1).done == 1
    manifest = orjson.loads((tmp_path / "out/_tightrun/manifest.json").read_bytes())
    assert URL in manifest["input_versions"]
    assert run(job).done == 2
    put([{"id": "a", "prompt": "one"}, {"id": "b", "prompt": "another"}])
    with pytest.raises(OutputError, match=r"input\.memory://bucket/in\.jsonl: created"):
        run(job)
    assert run(job, resume="new").done == 2
