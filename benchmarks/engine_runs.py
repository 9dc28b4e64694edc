"""tightrun's engine as a job file makes it, run more than once: loading is paid once, and runs
of several engines can take turns in one process."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.jobs import text_of
from benchmarks.random_model import TOKENIZER
from tightrun.cli.load_engine import engine_options
from tightrun.cli.planning import Planned
from tightrun.core import Completion, Request, StepRecord
from tightrun.io.inputs import read_chunks, scan_inputs
from tightrun.io.job import load_job
from tightrun.policies.compute_times import ComputeTimes
from tightrun.policies.plan import Plan
from tightrun.runtime.engine import Engine
from tightrun.runtime.loading import load
from tightrun.runtime.loading_offloaded import Shaken


def write_rows(
    path: Path, prompts: Sequence[Sequence[int]], outputs: Sequence[int] | None = None
) -> Path:
    """Prompts of token ids as the JSONL that `job` reads. With `outputs`, each row has its own
    `max_tokens`."""
    with path.open("w") as lines:
        for n, prompt in enumerate(prompts):
            row: dict[str, Any] = {"id": f"row-{n}", "prompt": text_of(prompt)}
            if outputs is not None:
                row["sampling_params"] = {"max_tokens": outputs[n]}
            lines.write(json.dumps(row) + "\n")
    return path


def job(
    model: Path,
    rows: Path,
    out: Path,
    *,
    max_tokens: int,
    context: int,
    hardware: Mapping[str, Any] | str,
    policy: Mapping[str, Any],
    limits: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A job as a mapping, for a model of `random_model`: greedy, and no row ends before its
    `max_tokens`."""
    return {
        "model": {"path": str(model.resolve()), "tokenizer": str(model.resolve() / TOKENIZER)},
        "input": {"path": str(rows.resolve()), "prompt": "prompt", "id": "id"},
        "sampling": {"max_tokens": max_tokens, "temperature": 0, "ignore_eos": True},
        "output": {"path": f"{out.resolve()}/", "format": "parquet"},
        "limits": {"context": context, **(limits or {})},
        "hardware": hardware if isinstance(hardware, str) else dict(hardware),
        "policy": dict(policy),
    }


class OpenJob:
    """An engine loaded for a job, and the job's rows. A context manager; leaving it unloads."""

    def __init__(
        self,
        described: Mapping[str, Any],
        placed: Callable[[Plan], Plan] | None = None,
        planned: Planned | None = None,
    ) -> None:
        """Loads. `placed` puts weights and KV of an offloaded run where they are to be, whatever
        the plan says; what is known of the job is as it was `planned`, where that is given. Raises
        ValueError when the job cannot be run, or does not fit.
        """
        found = load_job(described)
        with tempfile.TemporaryDirectory() as spool:
            scan = scan_inputs(found, spool=Path(spool))
            self.rows = [
                item
                for chunk in read_chunks(scan, found)
                for item in chunk.items
                if isinstance(item, Request)
            ]
        self.said: list[str] = []
        workload = None if planned is None else planned.facts.workload
        options = engine_options(found, scan, scan.rows, workload)
        if planned is not None:
            options = replace(options, known=planned.known)
        shaken = Shaken() if placed is None else Shaken(plan=placed)
        self._loaded = load(options, self.said.append, shaken)
        self._engine = Engine(options, self._loaded)

    def __enter__(self) -> OpenJob:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.close()

    @property
    def plan(self) -> Plan:
        """What was decided for the run."""
        return self._engine.plan

    @property
    def computing(self) -> ComputeTimes:
        """What computing takes by the cost model, at the probed rates."""
        return ComputeTimes(self._engine.shape, self._loaded.rates)

    def describe(self) -> list[str]:
        """The engine's own lines for people."""
        return self._engine.describe()

    def run(
        self,
        rows: Sequence[Request],
        full_decodes: int | None = None,
        most_s: float | None = None,
    ) -> list[StepRecord]:
        """The passes of these rows; ends after so many that decode all rows and nothing else, or
        after so many seconds."""
        stop = threading.Event()
        steps: list[StepRecord] = []
        full = 0

        def on_step(step: StepRecord) -> None:
            nonlocal full
            steps.append(step)
            full += step.phase == "decode" and step.sequences == len(rows)
            enough = full_decodes is not None and full >= full_decodes
            if enough or (most_s is not None and step.started_s + step.elapsed_s >= most_s):
                stop.set()

        failed: list[str] = []

        def finish(completion: Completion) -> None:
            if completion.error is not None:
                failed.append(completion.error.message)

        self._engine.run(rows, finish, on_step, stop)
        if failed:
            raise RuntimeError(f"{len(failed)} rows failed, the first: {failed[0]}")
        return steps
