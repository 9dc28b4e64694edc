"""A run against its plan, in words: while it goes, when it is over, and resource by resource."""

from __future__ import annotations

from tightrun.cli import units
from tightrun.cli.progress import Progress
from tightrun.policies.explain import explain
from tightrun.policies.measured import Comparison, Used

_NAMES = {
    "compute": "compute",
    "memory": "memory",
    "h2d": "to the device",
    "d2h": "from the device",
    "disk": "from disk",
}


def now_against_plan(progress: Progress) -> str:
    """The speed of the last minute beside the planned one; empty while there is none of either."""
    planned, now = progress.planned_output_tokens_per_s, progress.output_tokens_per_s
    if not planned or not now:
        return ""
    return f"plan {units.rate(planned)}, now {units.tokens(now)}"


def plan_lines(run: Comparison, *, whole: bool) -> list[str]:
    """What the closing summary says: the speed, the rates behind it, and why it was off.

    `whole` says that the run came to its end, so that its speed is that of the job.
    """
    lines = []
    planned, measured = run.planned.output_tokens_per_s, run.measured.output_tokens_per_s
    if planned and measured:
        speeds = f"planned {units.tokens(planned)}, measured {units.tokens(measured)} tokens/s"
        lines.append(f"{speeds} ({units.change(measured / planned)})")
    rates = [f"{_NAMES[x.resource]} {_pair(x)}" for x in run.resources if x.resource != "memory"]
    if rates:
        lines.append("planned and measured: " + ", ".join(rates))
    explained = explain(run, whole=whole)
    if explained is not None:
        lines.append(explained.text)
    return lines


def resource_lines(run: Comparison) -> list[str]:
    """The table of the report: speeds, and every resource with its rates and its busy time.

    Nobody sees when memory is busy: its measured rate is over the time of computing.
    """
    if not run.passes:
        return []
    rows = [("", "planned", "measured", "busy", "planned", "correction")]
    for name, planned, measured in (
        ("prompt", run.planned.prefill_tokens_per_s, run.measured.prefill_tokens_per_s),
        ("decode", run.planned.decode_tokens_per_s, run.measured.decode_tokens_per_s),
        ("output", run.planned.output_tokens_per_s, run.measured.output_tokens_per_s),
    ):
        rows.append((name, _known(planned), _known(measured), "", "", ""))
    for used in run.resources:
        seen = used.resource != "memory"
        rows.append(
            (
                _NAMES[used.resource],
                _rate(used, used.planned_per_s),
                _rate(used, used.measured_per_s),
                units.duration(used.busy_s) if seen else "",
                units.duration(used.planned_s),
                f"x {used.correction:.2f}" if seen else "",
            )
        )
    rows.append(
        ("passes", "", "", units.duration(run.passes_s), units.duration(run.passes_planned_s), "")
    )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]


def _known(tokens_per_s: float) -> str:
    return units.rate(tokens_per_s) if tokens_per_s else "-"


def _pair(used: Used) -> str:
    """Both rates, with the unit once where it is the same."""
    planned, measured = _rate(used, used.planned_per_s), _rate(used, used.measured_per_s)
    number, unit = planned.split(" ")
    return f"{number if measured.endswith(f' {unit}') else planned} and {measured}"


def _rate(used: Used, per_s: float) -> str:
    return units.flops(per_s) if used.resource == "compute" else units.bandwidth(per_s)
