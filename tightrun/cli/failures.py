"""When too many rows have failed to go on, and whether failed rows are failure at all."""

from __future__ import annotations

from tightrun.cli import units
from tightrun.io.quantities import Tolerance

MIN_ROWS = 100


def too_many_failed(failed: int, seen: int, limit: Tolerance | None) -> bool:
    """Whether `failed` of the `seen` rows is more than `limits.max_failed`; None is no limit.

    A share is taken of at least `MIN_ROWS` rows, so that one bad row among the first few is
    not "20 % failed"; a job smaller than that is judged by the same number of failures.
    """
    return limit is not None and not limit.allows(failed, max(seen, MIN_ROWS))


def reason_of(limit: Tolerance | None) -> str:
    """Why a run with too many failures was stopped."""
    assert limit is not None
    rows = f"{limit} of the rows" if limit.share is not None else units.rows(limit.count or 0)
    return f"more than {rows} failed (limits.max_failed)"
