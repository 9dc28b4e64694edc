"""How a run ended, as the number the shell, Slurm and cron see."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of `tightrun`; each means one thing."""

    FINISHED = 0
    INTERNAL_ERROR = 1
    USAGE = 2
    ROWS_FAILED = 3
    DOES_NOT_FIT = 4
    LOCKED = 5
    TOO_MANY_FAILED = 6
    STOPPED = 75
    SECOND_INTERRUPT = 130
