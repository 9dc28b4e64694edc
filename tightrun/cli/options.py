"""The flags that several commands share, as types of their parameters."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tightrun.cli.log_format import LogFormat

if TYPE_CHECKING:
    from tightrun.io.quantities import Tolerance


class ResumeChoice(StrEnum):
    """What to do with what lies at the output: go on, move it aside, or go on with what fits."""

    AUTO = "auto"
    NEW = "new"
    FORCE = "force"


class IfLockedChoice(StrEnum):
    """What to do when another run is at work on the output."""

    FAIL = "fail"
    SKIP = "skip"
    WAIT = "wait"


def tolerance(allow_failures: str | None) -> Tolerance | None:
    """The value of `--allow-failures`: a share or a number of rows; None without the flag."""
    if allow_failures is None:
        return None
    from tightrun.io.quantities import parse_tolerance

    try:
        return parse_tolerance(allow_failures)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--allow-failures") from error


def error_codes(asked: str) -> frozenset[str]:
    """The value of `--errors`: codes of rows that failed."""
    from tightrun.core import ERROR_CODES

    codes = frozenset(word.strip() for word in asked.split(",") if word.strip())
    unknown = sorted(codes - set(ERROR_CODES))
    if unknown or not codes:
        wrong = f"{unknown[0]!r} is none of them" if unknown else "none was named"
        raise typer.BadParameter(
            f"{wrong}; error codes are {', '.join(ERROR_CODES)}", param_hint="--errors"
        )
    return codes


def number_of_workers(asked: str) -> int | None:
    """The value of `--workers`; None for one per GPU."""
    if asked == "auto":
        return None
    if not asked.isdecimal() or asked == "0":
        raise typer.BadParameter("a number from 1, or auto", param_hint="--workers")
    return int(asked)


JobFile = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job file.")]

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a value, as in --set sampling.top_k=20."
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Run the first N rows only.")
]
ShowPrompts = Annotated[
    int,
    typer.Option("--show-prompts", metavar="N", min=0, help="Show the first N prompts as read."),
]
PrintConfig = Annotated[
    bool,
    typer.Option(
        "--print-config", help="Print the job with each value's origin, and do not run it."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan, as tightrun plan does, and run nothing.")
]
HardwareFile = Annotated[
    Path | None,
    typer.Option(
        "--hardware",
        metavar="FILE",
        help="Plan for the machine in this YAML file, a mapping as under hardware: in a job.",
    ),
]
Resume = Annotated[
    ResumeChoice,
    typer.Option(
        "--resume",
        help="auto: go on where an earlier run of the job left off; new: move what lies at the "
        "output aside to OUT.<time> and start afresh; force: go on though the job was changed, "
        "and keep the finished rows whose ids it still has.",
    ),
]
AllowFailures = Annotated[
    str | None,
    typer.Option(
        "--allow-failures",
        metavar="[=SHARE]",
        help="Exit 0 though rows failed; with a share or a number only up to it, as in =2%.",
    ),
]
IfLocked = Annotated[
    IfLockedChoice,
    typer.Option(
        "--if-locked",
        help="When another run is at work on the output: exit with 5, exit with 0, or wait.",
    ),
]
Share = Annotated[
    bool,
    typer.Option(
        "--share",
        help="Work on the output together with other runs that say so too, as the tasks of a Slurm "
        "array do: each takes shards that are free, and the last one concludes.",
    ),
]
Workers = Annotated[
    str,
    typer.Option(
        "--workers",
        metavar="N|auto",
        help="Run N processes that share the output; auto: one for each GPU that CUDA sees.",
    ),
]
Errors = Annotated[
    str,
    typer.Option("--errors", metavar="CODE,...", help="The error codes of the rows to do again."),
]
Format = Annotated[
    LogFormat,
    typer.Option("--log-format", help="How progress is written; auto: rich on a terminal."),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing while all is well (for cron).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
OutputArgument = Annotated[
    str,
    typer.Argument(metavar="OUT", help="The output.path of a job: a folder, .jsonl file, or URL."),
]
