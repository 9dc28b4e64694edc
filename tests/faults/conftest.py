"""One process to fork runs from, and one model, for all tests of faults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.runs import Runs, make_model


@dataclass(frozen=True, slots=True)
class World:
    """Where things happen to runs; `folder` keeps what undisturbed runs came to."""

    runs: Runs
    folder: Path
    model: Path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("faults")
    model = make_model(folder)
    with Runs(folder) as runs:
        yield World(runs, folder, model)
