"""Rivals take turns on the same job, each in a process of its own.

In the first round a rival shows each of its settings; in the others only the best of them. What
it shows in the first round counts, so that no rival is measured less often than another.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import median_of

HOUR_S = 3600.0
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
REPOSITORY = Path(__file__).parent.parent


class RivalError(Exception):
    """A rival's program that failed, or gave no answer that counts."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A tool and the commands that run the job with it, by the name of their settings.

    `missing` says why it cannot run here.
    """

    name: str
    settings: Mapping[str, Sequence[str]]
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of the job: generated tokens, seconds of generation, peak memory in bytes."""

    round: int
    setting: str
    tokens: int
    seconds: float
    peak_bytes: int
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "tokens_per_s": self.tokens_per_s}


Run = Callable[[str, str, Sequence[str], int], Measurement]


@dataclass
class Standing:
    """What a rival has shown so far. With an `error` it is out, and has no figure."""

    rival: Rival
    measured: list[Measurement] = field(default_factory=list)
    failed_settings: dict[str, str] = field(default_factory=dict)
    error: str | None = None

    @property
    def best_setting(self) -> str | None:
        """The fastest of the first round."""
        first = [shown for shown in self.measured if shown.round == 0]
        return max(first, key=lambda shown: shown.tokens_per_s).setting if first else None

    @property
    def counted(self) -> list[Measurement]:
        """The runs with the best setting."""
        return [shown for shown in self.measured if shown.setting == self.best_setting]

    @property
    def tokens_per_s(self) -> float | None:
        """The median over the rounds; None for one that is out."""
        return None if self.error else median_of([shown.tokens_per_s for shown in self.counted])


def take_turns(rivals: Sequence[Rival], rounds: int, run: Run) -> list[Standing]:
    """Every rival's standing after `rounds` rounds of A B C ..., in the order of `rivals`.

    `run(rival, setting, command, round)` does the job once; it raises RivalError when it fails.
    """
    standings = [Standing(rival, error=rival.missing) for rival in rivals]
    for number in range(rounds):
        for standing in standings:
            if standing.error is None:
                _take_turn(standing, number, run)
    return standings


def _take_turn(standing: Standing, number: int, run: Run) -> None:
    best = standing.best_setting
    for setting in standing.rival.settings if best is None else (best,):
        try:
            command = standing.rival.settings[setting]
            standing.measured.append(run(standing.rival.name, setting, command, number))
        except RivalError as error:
            standing.failed_settings[setting] = str(error)
    if standing.best_setting is None or standing.best_setting in standing.failed_settings:
        failed = standing.failed_settings.items()
        standing.error = "; ".join(f"{setting}: {error}" for setting, error in failed)


def run_program(command: Sequence[str], log: Path, timeout_s: float = HOUR_S) -> dict[str, Any]:
    """The JSON object that a program prints as its last line. What it says on standard error goes
    to the end of `log`. Raises RivalError with the last of it when the program fails."""
    environment = {**os.environ, **OFFLINE}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=environment,
            cwd=REPOSITORY,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RivalError(f"not finished after {timeout_s:,.0f} seconds") from None
    except OSError as error:
        raise RivalError(f"cannot be started: {error}") from error
    with log.open("a") as lines:
        lines.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\n")
    if done.returncode != 0:
        raise RivalError(f"exit code {done.returncode}: {_last_line(done.stderr)}")
    return _answer(done.stdout)


def measurement(
    answer: Mapping[str, Any], number: int, setting: str, expected_tokens: int
) -> Measurement:
    """A rival's answer as a measurement. Raises RivalError if it did not do the whole job."""
    details = dict(answer)
    tokens, seconds = details.pop("tokens"), details.pop("seconds")
    if tokens != expected_tokens:
        raise RivalError(f"made {tokens:,} tokens instead of {expected_tokens:,}")
    return Measurement(number, setting, tokens, seconds, details.pop("peak_bytes"), details)


def _answer(printed: str) -> dict[str, Any]:
    for line in reversed(printed.splitlines()):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise RivalError("ended well but printed no answer")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
