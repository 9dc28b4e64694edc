"""Lines under labels, printed as fits the place: a grid on a terminal, else aligned ASCII."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TextIO

from tightrun.cli.log_format import LogFormat
from tightrun.cli.views import fitting

_LABEL = 11


class Section(NamedTuple):
    """Lines that belong together; a label of its own stands before the first."""

    label: str
    lines: list[str]


def print_sections(
    headline: str, sections: Iterable[Section], out: TextIO, *, good: bool = True
) -> None:
    """Prints a headline and what belongs to it."""
    if fitting(LogFormat.AUTO, out, os.environ) is LogFormat.RICH:
        from tightrun.cli.sections_rich import print_grid

        print_grid(headline, sections, out, good=good)
    else:
        print("\n".join([headline, *plain_lines(sections)]), file=out)


def plain_lines(sections: Iterable[Section]) -> Iterator[str]:
    """Aligned ASCII lines for pipes and files."""
    for section in sections:
        for i, line in enumerate(section.lines):
            label = section.label if i == 0 else ""
            yield f"{label:<{_LABEL}}{line}".rstrip().replace("±", "+-")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
