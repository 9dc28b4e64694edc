"""The parts' results as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report import number, table


def slices_table(found: Mapping[str, Any]) -> str:
    """A row per number of batches: how many times as fast, and the share of the bound."""
    header = ("slices", "adaptive", "x static", "x sync", "of bound", "link", "triples", "dropped")
    ran = {k: shown for k, shown in found.items() if k.isdigit() and shown is not None}
    rows = [
        (
            f"K = {batches}, {shown['rows_per_batch']} rows",
            f"{number(shown['pass_s']['adaptive'], 2)} s",
            number(shown["static"], 2),
            number(shown["sync"], 2),
            percent(shown["bound_share"]),
            f"{shown['link_bytes_per_s'] / 1e6:.0f} MB/s",
            str(shown["kept_triples"]),
            str(shown["dropped_triples"]),
        )
        for batches, shown in ran.items()
    ]
    return _with_errors(table(header, rows), found)


def recompute_table(found: Mapping[str, Any]) -> str:
    """A row per form and context, and one for the run through all of them."""
    header = ("recompute", "x ratio 0", "ideal", "of ideal", "ratio", "ideal ratio",
              "x best fixed", "best fixed", "off plan")  # fmt: skip
    rows = []
    for form, shown in found["forms"].items():
        if shown is None:
            continue
        for context, phase in shown["phases"].items():
            rows.append(_recompute_row(f"{form}, context {context}", phase))
        rows.append(_recompute_row(f"{form}, through all", shown))
    lines = [_with_errors(table(header, rows), found)]
    for form, shown in found["forms"].items():
        if shown is not None:
            follows = number(shown["ratio_follows_context"], 2)
            lines.append(f"{form}: correlation of ratio and context {follows}")
    return "\n".join(lines)


def _recompute_row(name: str, shown: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        number(shown["gain"], 3),
        number(shown["ideal_gain"], 3),
        percent(shown["of_ideal"]),
        number(shown.get("ratio"), 3),
        number(shown.get("ideal_ratio"), 3),
        number(shown["vs_best_fixed"], 3),
        shown["best_fixed"],
        percent(shown["plan_error"]),
    )


def disk_table(found: Mapping[str, Any]) -> str:
    """A row per number of sequences, and what accelerate does."""
    header = ("disk", "tokens/s", "a pass", "disk bound", "compute bound", "of bound", "peak")
    rows = [
        (
            f"{count} sequences",
            number(case["tokens_per_s"]),
            f"{number(min(case['pass_s']), 2)} s",
            f"{number(case['bounds']['disk_s'], 2)} s",
            f"{number(case['bounds']['compute_s'], 2)} s",
            percent(case["bound_share"]),
            f"{case['peak_bytes'] / 2**30:.2f} GiB",
        )
        for count, case in found.get("cases", {}).items()
    ]
    lines = [_with_errors(table(header, rows), found)]
    for name, rival in found.get("rivals", {}).items():
        if rival["tokens_per_s"] is None:
            lines.append(f"{name} has no figure: {rival['error']}")
        else:
            lines.append(
                f"{name}: {number(rival['tokens_per_s'])} tokens/s at batch {rival['batch']}; "
                f"tightrun is {number(found[name], 2)} x"
            )
    if "limit_held" in found:
        held = "held" if found["limit_held"] else "NOT held"
        lines.append(f"memory limit {found['limit_bytes'] / 2**30:.2f} GiB: {held}")
    return "\n".join(lines)


def percent(share: float | None) -> str:
    """A share for a cell; a dash where there is none."""
    return "-" if share is None else f"{share:.1%}"


def _with_errors(text: str, found: Mapping[str, Any]) -> str:
    lines = [f"{name} has no figure: {error}" for name, error in found["errors"].items()]
    return "\n".join([text, *lines])
