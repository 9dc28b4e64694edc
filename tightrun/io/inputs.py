"""The door to the input side: scan a job's input once, then stream its rows.

Rows come in input order: sources sorted bytewise by path, rows as they stand in each;
`row_index` counts from 0 over all of them. Blank lines are no rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from tightrun.io.conclude import conclude
from tightrun.io.hub import Revisions
from tightrun.io.input_types import InputChunk, InputError, InputFormat, Scan, Source
from tightrun.io.job_model import Job
from tightrun.io.read import Reading
from tightrun.io.remote import RemoteFile, is_url
from tightrun.io.remote_sources import find_dataset, find_remote
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
    job: Job,
    *,
    spool: Path,
    stdin: BinaryIO | None = None,
    progress: Progress | None = None,
    versions: Mapping[str, str] | None = None,
) -> Scan:
    """Reads ids, lengths and types of all input once; tells `progress` the rows so far.

    Standard input, compressed files and remote lines are copied, decompressed, to the folder
    `spool`, from where `read_chunks` reads them. Datasets of the hub are read at the commits in
    `versions`, those of an earlier scan, else at the newest.

    Raises InputError for what must stop the job before a model is loaded: nothing to read, a
    damaged file, no or two columns that could be the prompt, a named column that is not there, two
    rows with one id; RemoteError where a network fails for long.
    """
    scanner = Scanner(job, progress)
    copies = Spool(spool)
    revisions = Revisions(versions)
    seen: dict[str, str] = {}
    for found in _find(job, revisions):
        if isinstance(found.path, RemoteFile):
            seen[found.path.url] = found.path.version
        try:
            _scan_source(scanner, found, copies, stdin)
        except OSError as error:
            why = error.strerror or str(error)
            raise InputError(f"{found.path} cannot be read: {why}") from error
    return replace(conclude(scanner, job), versions={**revisions.found, **seen})


def read_chunks(
    scan: Scan, job: Job, *, start_row: int = 0, limit: int | None = None
) -> Iterator[InputChunk]:
    """The rows from `start_row` on, of the job's first `limit` rows if that is given.

    Sequential and in bounded memory; files before `start_row` are not opened. Raises InputError
    if a file is no longer what was scanned.
    """
    stop = scan.rows if limit is None else min(scan.rows, limit)
    yield from Reading(scan, job, start_row, stop).chunks()


def _find(job: Job, revisions: Revisions) -> list[Found]:
    spec, output = job.input, job.output.path
    if spec.dataset is not None:
        path = Path(spec.dataset)
        if not path.exists():
            return find_dataset(spec, output, revisions)
        return [Found(path, path.name, "dataset")]
    local = [path for path in spec.path if not is_url(path)]
    urls = [path for path in spec.path if is_url(path)]
    found = find_sources(local, spec.format, Path(output)) if local else []
    if urls:
        found += find_remote(urls, spec.format, output, revisions, beside_local=bool(local))
    return sorted(found, key=lambda source: os.fsencode(source.name))


def _scan_source(scanner: Scanner, found: Found, copies: Spool, stdin: BinaryIO | None) -> None:
    if found.kind == "stdin":
        scanner.scan_lines(found, copies.standard_input(stdin))
    elif found.kind == "lines":
        scanner.scan_lines(found, _plain_lines(found, copies))
    elif isinstance(found.path, RemoteFile) and not found.path.in_parts:
        scanner.scan_table(found, copies.fetched(found.path))
    else:
        scanner.scan_table(found, found.path)


def _plain_lines(found: Found, copies: Spool) -> Path:
    """Where the lines of a file lie on the local disk."""
    path = found.path
    if isinstance(path, RemoteFile):
        return copies.fetched(path)
    assert isinstance(path, Path)
    compression = compression_of(path)
    return copies.decompressed(path, compression) if compression else path
