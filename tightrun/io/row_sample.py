"""A few rows of a scanned input, spread evenly over it, read as the requests they will be."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from tightrun.core import Completion, Request
from tightrun.io.input_types import Scan, Source
from tightrun.io.job_model import Job
from tightrun.io.job_sections import InputSpec
from tightrun.io.line_rows import INDEX_STEP, line_rows, parse_line
from tightrun.io.openai_batch import BatchLineReader
from tightrun.io.prompts import ColumnReader, RowReader, read_row
from tightrun.io.table_rows import open_table, table_rows

# However long the rows are, so many are read, or all there are.
FEWEST_ROWS = 64


class SampledRow(NamedTuple):
    """A row of the sample: its request, and the bytes that the scan counts for it."""

    request: Request
    nbytes: int


def sample_rows(scan: Scan, job: Job, rows: int, count: int, nbytes: int) -> Iterator[SampledRow]:
    """About `count` of the first `rows` rows in input order, fewer where they come to more than
    `nbytes`. Rows that cannot be executed are left out; nothing is kept of one when the next is
    read. Raises InputError for a file that can no longer be read.
    """
    mean = max(1, int(scan.lengths[:rows].mean()))
    count = min(rows, max(FEWEST_ROWS, min(count, nbytes // mean)))
    wanted = evenly(rows, count)
    columns: ColumnReader | None = None
    batch = BatchLineReader(job)
    for source in scan.sources:
        first, last = bisect_left(wanted, source.start), bisect_left(wanted, source.stop)
        here = [row - source.start for row in wanted[first:last]]
        if not here:
            continue
        if source.kind == "openai-batch":
            items = _lines(source, batch, here)
        else:
            columns = columns or ColumnReader(job, scan.columns)
            is_table = source.kind != "jsonl"
            read = partial(_cells, spec=job.input) if is_table else _lines
            items = read(source, columns, here)
        for item in items:
            if isinstance(item, Request):
                yield SampledRow(item, int(scan.lengths[item.row_index]))


def evenly(rows: int, count: int) -> list[int]:
    """`count` row numbers below `rows`, ascending, each in the middle of its share."""
    return [(2 * i + 1) * rows // (2 * count) for i in range(count)]


def _lines(
    source: Source, reader: RowReader, wanted: Sequence[int]
) -> Iterator[Request | Completion]:
    at, lines = 0, line_rows(source)
    for row in wanted:
        # The scan knows where every so many lines begin: none before that has to be read.
        if row - row % INDEX_STEP > at:
            at, lines = row, line_rows(source, row)
        line = next(islice(lines, row - at, None), None)
        if line is None:
            return
        at = row + 1
        name = f"{source.name}#{row}"
        yield read_row(reader, parse_line(line), source.start + row, name, name)


def _cells(
    source: Source, reader: ColumnReader, wanted: Sequence[int], spec: InputSpec
) -> Iterator[Request | Completion]:
    table, _ = open_table(source.data_path, source.kind, spec)
    left = list(reversed(wanted))
    while left:
        start = left[-1]
        for batch in table.batches(reader.needed, start):
            while left and left[-1] < start + batch.num_rows:
                row = left.pop()
                name = f"{source.name}#{row}"
                cells = table_rows(batch.slice(row - start, 1), batch.schema.names)
                yield read_row(reader, cells[0], source.start + row, name, name)
            start += batch.num_rows
            if not left or table.nearest_start(left[-1]) > start:
                break
        else:
            return
