"""A run plans from the lengths of its input, as `tightrun plan` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.fake_engine import FakeEngine
from tests.cli.jobs import job_of
from tightrun.cli import start_engine
from tightrun.io.inputs import scan_inputs
from tightrun.io.job import load_job
from tightrun.policies.output_shares import Learnt
from tightrun.policies.plan import Workload

ROWS = [{"prompt": "x" * (40 + 40 * (n % 3))} for n in range(9)]


class Remembering(FakeEngine):
    """An engine that keeps what it is to begin with."""

    def remember(self, learnt: Learnt) -> None:
        self.remembered = learnt


def started(
    folder: Path, monkeypatch: pytest.MonkeyPatch, learnt: Learnt | None
) -> tuple[Workload, FakeEngine]:
    """What the engine's plan is made from, for a model whose tokenizer nobody has."""
    given: list[Workload] = []
    engine = Remembering()

    def load(_job: Any, _scan: Any, _rows: int, _notify: Any, workload: Workload) -> FakeEngine:
        given.append(workload)
        return engine

    monkeypatch.setattr(start_engine, "load_engine", load)
    job = load_job(job_of(folder, ROWS, sampling={"max_tokens": 100}))
    scan = scan_inputs(job, spool=folder / "spool")
    start_engine.start_engine(job, scan, 9, lambda _: None, learnt)
    return given[0], engine


def test_prompts_are_reckoned_from_their_bytes_and_outputs_are_as_long_as_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload, engine = started(tmp_path, monkeypatch, None)
    assert workload.prompts == (10, 10, 10, 20, 20, 20, 30, 30, 30)
    assert (workload.rows, workload.typical_output, workload.most_output) == (9, 100, 100)
    assert engine.remembered is None


def test_what_an_earlier_run_has_learnt_shortens_the_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt = Learnt()
    for _ in range(50):
        learnt.add(25, 100)
    workload, engine = started(tmp_path, monkeypatch, learnt)
    assert workload.typical_output == 25
    assert engine.remembered is learnt
