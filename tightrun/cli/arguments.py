"""The two liberties of the command line: `tightrun JOB.yaml` runs, and a flag with `[=VALUE]`."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path

_ALL = "100%"


class UnknownCommandError(ValueError):
    """The first word is neither a command nor a file."""


def normalise(arguments: Sequence[str], commands: Collection[str]) -> list[str]:
    """Arguments as the parser takes them: `run` put in where no command is named, and
    `--allow-failures` alone given the share it stands for.

    Raises UnknownCommandError for a first word that looks like a misspelt command.
    """
    spelled = [f"{word}={_ALL}" if word == "--allow-failures" else word for word in arguments]
    if not spelled or spelled[0] in ("--help", "--version"):
        return spelled
    first = spelled[0]
    if first in commands:
        return spelled
    if not first.startswith("-") and not _may_be_file(first):
        close = difflib.get_close_matches(first, commands, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"commands are {', '.join(commands)}"
        raise UnknownCommandError(f"'{first}' is neither a command nor a job file; {hint}")
    return ["run", *spelled]


def _may_be_file(word: str) -> bool:
    return Path(word).suffix != "" or "/" in word or Path(word).exists()
