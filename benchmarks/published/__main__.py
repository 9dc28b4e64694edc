"""Published systems by the simulator: their policies, their machines, predicted against published.

Nothing is run but our cost model. What it does not know (the authors' code, its stalls, their
drivers) is the error; sources and assumptions stand beside each case.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks.machine import versions
from benchmarks.published.cases import CASES, Case
from benchmarks.report import number, publish, table


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints and writes predicted against published."""
    told = argparse.ArgumentParser(prog="python -m benchmarks.published", description=__doc__)
    told.parse_args(arguments)
    cases = [figures(case) for case in CASES]
    rows = [
        (case["name"], _figure(case, "predicted"), _figure(case, "published"), _percent(case))
        for case in cases
    ]
    print(table(("system", "predicted", "published", "error"), rows), end="\n\n")
    for case in CASES:
        assumed = f" Assumed: {case.assumed}." if case.assumed else ""
        print(f"{case.name}: {case.source}.{assumed}")
    result = {
        "benchmark": "published",
        "cases": cases,
        "versions": versions(("tightrun",)),
    }
    publish(result, "published", "simulated")
    return 0


def figures(case: Case) -> dict[str, Any]:
    """The case with its prediction; `error` is the share by which that is more than published."""
    predicted = case.predict()
    return {
        "name": case.name,
        "predicted": predicted,
        "published": case.published,
        "error": predicted / case.published - 1,
        "unit": "times as fast" if case.gain else "tokens/s",
        "source": case.source,
        "assumed": case.assumed,
    }


def _figure(case: dict[str, Any], key: str) -> str:
    return number(case[key], 2) + (" x" if case["unit"] == "times as fast" else "")


def _percent(case: dict[str, Any]) -> str:
    return f"{case['error']:+.0%}"


if __name__ == "__main__":
    raise SystemExit(main())
