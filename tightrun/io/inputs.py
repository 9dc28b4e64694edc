"""The door to the input side: scan a job's input once, then stream its rows.

Rows come in input order: sources sorted bytewise by path, rows as they stand in each;
`row_index` counts from 0 over all of them. Blank lines are no rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tightrun.io.conclude import conclude
from tightrun.io.input_types import InputChunk, InputError, InputFormat, Scan, Source
from tightrun.io.job_model import Job
from tightrun.io.read import Reading
from tightrun.io.scan import Progress, Scanner
from tightrun.io.sources import Found, find_sources
from tightrun.io.spool import Spool, compression_of

__all__ = [
    "InputChunk",
    "InputError",
    "InputFormat",
    "Scan",
    "Source",
    "read_chunks",
    "scan_inputs",
]


def scan_inputs(
    job: Job, *, spool: Path, stdin: BinaryIO | None = None, progress: Progress | None = None
) -> Scan:
    """Reads ids, lengths and types of all input once; tells `progress` the rows so far.

    Standard input and compressed files are copied, decompressed, to the folder `spool`, from
    where `read_chunks` reads them. Raises InputError for what must stop the job before a model
    is loaded: nothing to read, a damaged file, no or two columns that could be the prompt, a
    named column that is not there, two rows with one id.
    """
    scanner = Scanner(job, progress)
    copies = Spool(spool)
    for found in _find(job):
        try:
            _scan_source(scanner, found, copies, stdin)
        except OSError as error:
            why = error.strerror or str(error)
            raise InputError(f"{found.path} cannot be read: {why}") from error
    return conclude(scanner, job)


def read_chunks(
    scan: Scan, job: Job, *, start_row: int = 0, limit: int | None = None
) -> Iterator[InputChunk]:
    """The rows from `start_row` on, of the job's first `limit` rows if that is given.

    Sequential and in bounded memory; files before `start_row` are not opened. Raises InputError
    if a file is no longer what was scanned.
    """
    stop = scan.rows if limit is None else min(scan.rows, limit)
    yield from Reading(scan, job, start_row, stop).chunks()


def _find(job: Job) -> list[Found]:
    if job.input.dataset is not None:
        path = Path(job.input.dataset)
        return [Found(path, path.name, "dataset")]
    return find_sources(job.input.path, job.input.format, Path(job.output.path))


def _scan_source(scanner: Scanner, found: Found, copies: Spool, stdin: BinaryIO | None) -> None:
    if found.kind == "stdin":
        scanner.scan_lines(found, copies.standard_input(stdin))
    elif found.kind == "lines":
        compression = compression_of(found.path)
        copied = copies.decompressed(found.path, compression) if compression else found.path
        scanner.scan_lines(found, copied)
    else:
        scanner.scan_table(found)
