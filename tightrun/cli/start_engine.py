"""An engine that plans from what `tightrun plan` would: the lengths of the input, and what earlier
runs have learnt."""

from __future__ import annotations

from tightrun.cli.engine_seam import Engine, Notify
from tightrun.cli.load_engine import load_engine
from tightrun.cli.planning import input_facts
from tightrun.io.inputs import Scan
from tightrun.io.job import Job
from tightrun.policies.output_shares import Learnt


def start_engine(
    job: Job, scan: Scan, rows: int, notify: Notify, learnt: Learnt | None = None
) -> Engine:
    """The engine for the first `rows` rows of the input; `learnt` is of an earlier run of the job.

    Raises InputError for an input that is no longer what was scanned, RefusedError for a model or
    device that cannot be used, DoesNotFitError with the sum when memory does not suffice.
    """
    share = None if learnt is None else learnt.mean_share
    facts = input_facts(job, scan, rows, notify, share)
    engine = load_engine(job, scan, rows, notify, facts.workload)
    if learnt is not None:
        engine.remember(learnt)
    return engine
