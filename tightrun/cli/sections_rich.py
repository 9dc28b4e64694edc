"""Lines under labels on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tightrun.cli.sections import Section

_WIDTH = 100


def print_grid(headline: str, sections: Iterable[Section], out: TextIO, *, good: bool) -> None:
    """Prints the headline and the sections, labels apart from what they say."""
    console = Console(file=out, highlight=False)
    console.width = min(console.width, _WIDTH)
    console.print(Text(headline, style="bold green" if good else "bold red"))
    console.print(Padding(grid_of(sections), (0, 0, 0, 2)))


def grid_of(sections: Iterable[Section], label: int = 0) -> Table:
    """The sections as two columns, the first at least `label` wide."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True, min_width=label)
    grid.add_column(overflow="fold")
    for section in sections:
        for i, line in enumerate(section.lines):
            grid.add_row(section.label if i == 0 else "", Text(line))
    return grid
