"""The live view on a terminal: finished phases stay, the current one is rewritten in place."""

from __future__ import annotations

import threading
import time
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tightrun.cli import units
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.plan_lines import now_against_plan
from tightrun.cli.plan_text import run_sections
from tightrun.cli.progress import Progress
from tightrun.cli.sections_rich import grid_of
from tightrun.cli.summary import Summary, closing_lines, headline
from tightrun.cli.view_plain import memory_parts, time_left
from tightrun.policies.planner import JobPlan

_WIDTH = 100
_LABEL = 11
_SHOW_CURSOR = "\x1b[?25h"


class RichView:
    """At most four lines move, four times a second; the rest is written once and stays."""

    interval_s = 0.25

    def __init__(self, progress: TextIO, closing: TextIO) -> None:
        self._console = Console(file=progress, force_terminal=True, highlight=False)
        self._closing = Console(file=closing, highlight=False)
        self._console.width = min(self._console.width, _WIDTH)
        self._closing.width = min(self._closing.width, _WIDTH)
        plain = self._console.options.ascii_only
        self._marks = ("+", ">", "x") if plain else ("✓", "•", "✗")
        self._dot = ", " if plain else " · "
        # rich counts the lines it has to move over: two threads that print at once upset it.
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._phase = ""
        self._detail = ""
        self._began_s = 0.0
        self._progress: Progress | None = None

    def title(self, text: str) -> None:
        name, _, rest = text.partition("  ")
        self._console.print(Text.assemble((name, "bold"), "  ", (rest, "dim")))
        self._console.print()

    def phase(self, name: str, detail: str = "", *, broke_off: bool = False) -> None:
        with self._lock:
            self._end_phase(good=not broke_off)
            self._phase, self._detail, self._began_s = name, detail, time.monotonic()
            self._progress = None
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False, transient=True)
                self._live.start()
            self._refresh()

    def detail(self, text: str) -> None:
        self._detail = text

    def tick(self, progress: Progress | None) -> None:
        with self._lock:
            self._progress = progress
            self._refresh()

    def plan(self, job_plan: JobPlan) -> None:
        with self._lock:
            table = grid_of(run_sections(job_plan), _LABEL - 2)
            self._console.print(Padding(table, (0, 0, 0, 2)))

    def fact(self, text: str) -> None:
        self._aside(text, "dim")

    def note(self, text: str) -> None:
        self._aside(text, "yellow")

    def error(self, text: str) -> None:
        with self._lock:
            self._console.print(Text(text, style="red"))

    def prompt(self, place: str, text: str) -> None:
        with self._lock:
            self._console.print(Text(place, style="bold"))
            self._console.print(Padding(Text(text), (0, 0, 1, 4)))

    def close(self, *, good: bool) -> None:
        with self._lock:
            self._end_phase(good=good)
            if self._live is not None:
                self._live.stop()
                self._live = None

    def closing(self, summary: Summary) -> None:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="dim", width=_LABEL - 2, no_wrap=True)
        grid.add_column(overflow="fold")
        for label, text in closing_lines(summary):
            grid.add_row(label, Text(text))
        style = "bold green" if summary.exit_code == ExitCode.FINISHED else "bold yellow"
        self._closing.print()
        self._closing.print(Text(headline(summary), style=style))
        self._closing.print(Padding(grid, (0, 0, 0, 2)))

    def abort(self) -> None:
        self._console.file.write(_SHOW_CURSOR)
        self._console.file.flush()

    def _aside(self, text: str, style: str) -> None:
        with self._lock:
            self._console.print(Padding(Text(text, style=style), (0, 0, 0, 2 + _LABEL)))

    def _end_phase(self, *, good: bool) -> None:
        if not self._phase:
            return
        mark = Text(self._marks[0], "green") if good else Text(self._marks[2], "red")
        self._console.print(self._row(mark, Text(self._detail)))
        self._phase = ""

    def _refresh(self) -> None:
        if self._live is None or not self._phase:
            return
        progress = self._progress
        body = Text(self._detail, style="dim") if progress is None else self._run(progress)
        self._live.update(self._row(Text(self._marks[1], "cyan"), body), refresh=True)

    def _row(self, mark: Text, body: RenderableType) -> Table:
        grid = Table.grid(expand=True)
        grid.add_column(width=2)
        grid.add_column(width=_LABEL)
        grid.add_column(ratio=1)
        grid.add_column(justify="right", style="dim", no_wrap=True)
        took = units.duration(time.monotonic() - self._began_s)
        grid.add_row(mark, Text(self._phase, style="bold"), body, f"  {took}")
        return grid

    def _run(self, progress: Progress) -> RenderableType:
        bar = Table.grid(expand=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        bar.add_row(
            ProgressBar(total=1.0, completed=progress.share),
            f"  {units.count(progress.done)} of {units.rows(progress.rows)}",
        )
        speed = [
            f"{units.rate(progress.input_tokens_per_s)} in",
            f"{units.rate(progress.output_tokens_per_s)} out",
            f"{units.count(progress.running)} running",
            now_against_plan(progress),
        ]
        state = Text(self._dot.join([*memory_parts(progress), ""]), style="dim")
        state.append(f"{units.count(progress.failed)} failed", "red" if progress.failed else "dim")
        left = time_left(progress)
        if left:
            state.append(self._dot + left, style="default")
        return Group(bar, Text(self._dot.join(filter(None, speed))), state)
