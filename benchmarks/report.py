"""How a benchmark says what it found: a table for people, then one JSON object, also in a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"


def median_of(figures: Sequence[float]) -> float | None:
    """The median; None of no figure."""
    return median(figures) if figures else None


def ratios_to(ours: float | None, theirs: Mapping[str, float | None]) -> dict[str, float | None]:
    """Ours over each of theirs; None where either is missing."""
    return {
        name: None if ours is None or figure is None else ours / figure
        for name, figure in theirs.items()
    }


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(padded)} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *(line(row) for row in rows)])


def publish(
    result: Mapping[str, Any], name: str, hardware_name: str, folder: Path = RESULTS
) -> Path:
    """Writes the result to `<name>-<hardware>-<date>.json` in `folder`, prints it as one line (the
    last one of a benchmark) and returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{hardware_name}-{datetime.now(UTC):%Y-%m-%d}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result), flush=True)
    return path


def number(value: float | None, digits: int = 1) -> str:
    """A figure for a cell; a dash where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def say(text: str) -> None:
    """A line for people who wait, beside the result."""
    print(text, file=sys.stderr, flush=True)
