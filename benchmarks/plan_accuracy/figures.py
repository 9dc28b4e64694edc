"""The arithmetic between what was predicted and measured and what is printed. Plain numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from tightrun.core import StepRecord
from tightrun.policies.profile import MOST_OTHERS

# What a lane of the device is called where people ask what binds.
RESOURCE = {
    "compute": "compute",
    "memory": "memory",
    "h2d": "link",
    "d2h": "link",
    "disk": "disk",
}


def error(predicted: float, measured: float) -> float:
    """How far a prediction is off, as a share of what was measured; above 0 it was too high."""
    return predicted / measured - 1


def setting_figures(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of all settings that ran: how many, the median error, the worst, how many times
    as fast the fastest was as the slowest, and how many were bound by what."""
    ran = [shown for shown in found if not shown.get("failed")]
    if not ran:
        return {"settings": 0, "median_error": None, "worst_error": None}
    errors = [abs(shown["error"]) for shown in ran]
    speeds = [shown["measured_tokens_per_s"] for shown in ran]
    return {
        "settings": len(ran),
        "median_error": median(errors),
        "worst_error": max(errors),
        "failed": len(found) - len(ran),
        "disturbed": sum(shown["others_share"] > MOST_OTHERS for shown in ran),
        "span": max(speeds) / min(speeds),
        "bindings": dict(Counter(shown["binding"]["measured"] for shown in ran)),
        "bindings_planned_right": sum(
            shown["binding"]["measured"] == shown["binding"]["planned"] for shown in ran
        ),
    }


def choice_figures(found: Sequence[Mapping[str, Any]]) -> float | None:
    """The worst gap: how much faster the best other plan was than the chosen one, as a share."""
    return max((shown["gap"] for shown in found if not shown.get("failed")), default=None)


def gap(chosen: Sequence[float], others: Mapping[str, Sequence[float]]) -> tuple[float, str]:
    """The best of the others' median speeds over that of the chosen plan, less 1, and which."""
    best = max(others, key=lambda name: median(others[name]))
    return median(others[best]) / median(chosen) - 1, best


def measured_binding(steps: Sequence[StepRecord], memory_share: float) -> str:
    """What was busy longest over the job. Of computing, `memory_share` was reading memory."""
    compute_s = sum(step.compute_s for step in steps)
    busy = {
        "compute": (1 - memory_share) * compute_s,
        "memory": memory_share * compute_s,
        "h2d": sum(step.h2d_s for step in steps),
        "d2h": sum(step.d2h_s for step in steps),
        "disk": sum(step.disk_s for step in steps),
    }
    links = max(("h2d", "d2h", "disk"), key=busy.__getitem__)
    if compute_s >= busy[links]:
        return RESOURCE["compute" if busy["compute"] >= busy["memory"] else "memory"]
    return RESOURCE[links]
