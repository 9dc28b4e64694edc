"""Every row of a job's input, read as a run would read it, for `tightrun validate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple

from tightrun.core import Completion
from tightrun.io.inputs import read_chunks, scan_inputs
from tightrun.io.job_model import Job

PROBLEMS_SHOWN = 20


class Problem(NamedTuple):
    """A row that would be an error row: where it stands, the error's code, and why."""

    place: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """What the input holds, and what is wrong in it.

    `problems` are the first ones in input order; `codes` counts all of them by error code.
    """

    rows: int
    files: int
    columns: tuple[str, ...]
    problems: tuple[Problem, ...]
    codes: dict[str, int]
    warnings: tuple[str, ...]

    @property
    def failed(self) -> int:
        """How many rows would be error rows."""
        return sum(self.codes.values())


def validate_inputs(
    job: Job,
    *,
    stdin: BinaryIO | None = None,
    progress: Callable[[int], None] | None = None,
) -> ValidationReport:
    """Scans and reads the whole input, and writes nothing but copies that are removed again.

    Raises InputError for what would stop the job before its first row.
    """
    codes: Counter[str] = Counter()
    problems: list[Problem] = []
    with TemporaryDirectory(prefix="tightrun-") as folder:
        scan = scan_inputs(job, spool=Path(folder), stdin=stdin, progress=progress)
        for chunk in read_chunks(scan, job):
            for i, item in enumerate(chunk.items):
                if not isinstance(item, Completion) or item.error is None:
                    continue
                codes[item.error.code] += 1
                if len(problems) < PROBLEMS_SHOWN:
                    place = chunk.place(i)
                    message = item.error.message.removeprefix(f"{place}: ")
                    problems.append(Problem(place, item.error.code, message))
    return ValidationReport(
        rows=scan.rows,
        files=len(scan.sources),
        columns=scan.columns,
        problems=tuple(problems),
        codes=dict(codes.most_common()),
        warnings=scan.warnings,
    )
