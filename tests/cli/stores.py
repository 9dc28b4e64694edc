"""An output at a URL in memory, run from machines that share nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.cli.fake_engine import FakeEngine, factory
from tests.cli.jobs import Listener
from tightrun.cli.run import RunOptions, run_job
from tightrun.cli.stopping import Stop
from tightrun.cli.summary import Summary

OUT = "memory://bucket/out"


@dataclass
class Runner:
    """Runs jobs on a machine whose copies of outputs are in a folder of their own."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def run(
        self,
        machine: str,
        job: dict[str, Any],
        engine: FakeEngine | None = None,
        *,
        view: Listener | None = None,
        stop: Stop | None = None,
        **options: Any,
    ) -> Summary:
        self.use(machine)
        return run_job(
            job,
            RunOptions(**options),
            view=view or Listener(),
            stop=stop,
            engine_factory=factory(engine or FakeEngine()),
        )

    def use(self, machine: str) -> None:
        self.monkeypatch.setenv("XDG_STATE_HOME", str(self.folder / machine))

    def copy(self, machine: str, name: str = "out") -> Path:
        """The local copy of the one output that the machine knows."""
        (found,) = (self.folder / machine / "tightrun/outputs").glob(f"*/{name}")
        return found


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    """Machines, and a store with nothing in it."""
    MemoryFileSystem.store.clear()
    yield Runner(tmp_path, monkeypatch)
    MemoryFileSystem.store.clear()


def names(url: str = OUT) -> set[str]:
    """The files in the store, below the URL."""
    fs, path = fsspec.core.url_to_fs(url)
    return {found.removeprefix(f"{path}/") for found in fs.find(path)}


def rows(url: str = OUT) -> list[tuple[str, str]]:
    """The ids and texts of a Parquet output in the store, in the order of the input."""
    fs, path = fsspec.core.url_to_fs(url)
    table = pq.read_table(f"{path}/data", filesystem=fs).sort_by("row_index")
    columns = (table.column(name).to_pylist() for name in ("custom_id", "text"))
    return list(zip(*columns, strict=True))
