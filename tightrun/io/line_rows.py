"""The rows of a line file from any row on, found through the byte index of the scan."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tightrun.io.input_types import BadRowError, Source
from tightrun.io.jsonl import Line, parse_object, read_lines

INDEX_STEP = 1024
READ_BYTES = 1 << 20


def parse_line(line: Line) -> dict[str, Any] | BadRowError:
    """The row in a line, or why it is none."""
    try:
        return parse_object(line.raw)
    except BadRowError as error:
        return error


def line_rows(source: Source, start: int = 0) -> Iterator[Line]:
    """The lines of the source's rows from `start` on, counted within the source."""
    assert source.offsets is not None, "a line file is indexed by the scan"
    assert source.lines is not None, "a line file is indexed by the scan"
    if start >= source.rows:
        return
    assert isinstance(source.data_path, Path), "lines are read from the local disk"
    mark = start // INDEX_STEP
    with source.data_path.open("rb", buffering=READ_BYTES) as file:
        lines = read_lines(file, int(source.offsets[mark]), int(source.lines[mark]))
        yield from islice(lines, start - mark * INDEX_STEP, source.rows - mark * INDEX_STEP)
