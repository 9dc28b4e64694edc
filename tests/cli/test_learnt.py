"""A run begins with what an earlier run of its job has learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.fake_engine import FakeEngine, factory
from tests.cli.jobs import Listener, job_of, prompts
from tightrun.cli.run import RunOptions, run_job


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(folder: Path, rows: int = 40, **sections: Any) -> FakeEngine:
    engine = FakeEngine()
    job = job_of(folder, prompts(rows), **sections)
    options = RunOptions(resume="new")
    run_job(job, options, view=Listener(), engine_factory=factory(engine))
    return engine


def test_the_first_run_has_nothing_to_begin_with(tmp_path: Path) -> None:
    assert run(tmp_path).remembered is None


def test_the_manifest_keeps_how_long_outputs_were(tmp_path: Path) -> None:
    run(tmp_path)
    manifest = json.loads((tmp_path / "out" / "_tightrun" / "manifest.json").read_text())
    assert (manifest["learnt"]["finished"], manifest["learnt"]["tokens"]) == (40, 80)
    assert manifest["learnt"]["quantiles"]["0.5"] == 0.0


def test_the_next_run_begins_with_it_also_with_other_rows(tmp_path: Path) -> None:
    first = run(tmp_path)
    assert run(tmp_path, rows=50).remembered == first.learnt


def test_other_sampling_makes_it_another_job(tmp_path: Path) -> None:
    run(tmp_path)
    assert run(tmp_path, sampling={"max_tokens": 7}).remembered is None


def test_a_manifest_that_cannot_be_read_teaches_nothing(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "out" / "_tightrun" / "manifest.json").write_text("{")
    assert run(tmp_path).remembered is None
