"""What was found as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report import number, table


def settings_table(found: Sequence[Mapping[str, Any]]) -> str:
    """A row per setting: what binds, planned and measured, and how far the plan is off."""
    header = ("setting", "policy", "binds, planned", "measured", "planned tokens/s", "measured",
              "error", "others' CPU")  # fmt: skip
    return table(header, [_setting_row(shown) for shown in found])


def _setting_row(shown: Mapping[str, Any]) -> tuple[str, ...]:
    told = shown["told"]
    if shown.get("failed"):
        return (told["name"], told["policy"], *["-"] * 4, "failed", "-")
    return (
        told["name"],
        told["policy"],
        shown["binding"]["planned"],
        shown["binding"]["measured"],
        number(shown["predicted_tokens_per_s"]),
        number(shown["measured_tokens_per_s"]),
        f"{shown['error']:+.1%}",
        f"{shown['others_share']:.0%}",
    )


def choice_table(found: Sequence[Mapping[str, Any]]) -> str:
    """A row per setting: the chosen plan and the best of the others, by their medians."""
    header = ("choice", "chosen tokens/s", "best other", "gap", "others run", "best other's plan")
    rows = [
        (
            shown["name"],
            number(shown["chosen"]["tokens_per_s"]),
            number(shown["best"]["tokens_per_s"]),
            f"{shown['gap']:+.1%}",
            str(shown["ran"]),
            shown["best"]["way"],
        )
        for shown in found
        if not shown.get("failed")
    ]
    return table(header, rows)
