"""Does the plan tell the truth, on this machine's emulated accelerator and disk?

settings: output tokens/s that plans predict, before anything runs, against those of whole jobs.
choice: on four of the settings, the chosen plan against twenty others that were possible.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.arguments import benchmark_parser
from benchmarks.machine import hardware, hardware_name, versions
from benchmarks.plan_accuracy.figures import choice_figures, setting_figures
from benchmarks.plan_accuracy.settings import CHOICES, SLOTS
from benchmarks.plan_accuracy.tables import choice_table, settings_table
from benchmarks.report import RESULTS, publish, say
from benchmarks.turns import RivalError, run_program

PARTS = ("settings", "choice")
PACKAGES = ("tightrun", "torch", "transformers", "numpy")
LIMIT_S = 1200.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the parts asked for, prints and writes the result; 1 if something has no figure."""
    told = _parser().parse_args(arguments)
    told.workdir.mkdir(parents=True, exist_ok=True)
    say(f"what the programs say goes to {_log(told)}")
    machine = hardware()
    name = "plan_accuracy-quick" if told.quick else "plan_accuracy"
    if told.seed:
        name += f"-seed-{told.seed}"
    kept = earlier(name, hardware_name(machine))
    details: dict[str, Any] = {}
    for part in PARTS:
        details[part] = MEASURE[part](told) if part in told.part else kept.get(part)
        if details[part] is not None:
            print(TABLES[part](details[part]), end="\n\n", flush=True)
    result = {
        "benchmark": "plan_accuracy",
        **figures(details),
        "hardware": machine,
        "versions": versions(PACKAGES),
        "seed": told.seed,
        "details": details,
    }
    publish(result, name, hardware_name(machine))
    return int(any(shown.get("failed") for found in details.values() for shown in found or ()))


def figures(details: Mapping[str, Sequence[Mapping[str, Any]] | None]) -> dict[str, Any]:
    """The figures of the contract; None for those of a part that was never measured."""
    settings, choice = details["settings"], details["choice"]
    none = {"settings": None, "median_error": None, "worst_error": None}
    return {
        **(none if settings is None else setting_figures(settings)),
        "choice_gap": None if choice is None else choice_figures(choice),
    }


def earlier(name: str, machine: str, folder: Path = RESULTS) -> dict[str, Any]:
    """The details of today's earlier result of this machine, for a part that is left out."""
    path = folder / f"{name}-{machine}-{datetime.now(UTC):%Y-%m-%d}.json"
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text())["details"]
    return found


def measure_settings(told: argparse.Namespace) -> list[dict[str, Any]]:
    """A child for each setting."""
    return [_child("trial", slot.name, n, told) for n, slot in enumerate(SLOTS)]


def measure_choice(told: argparse.Namespace) -> list[dict[str, Any]]:
    """A child for each of the settings on which others plans are run."""
    names = [slot.name for slot in SLOTS]
    return [_child("choice", name, names.index(name), told) for name in CHOICES]


def _child(module: str, name: str, number: int, told: argparse.Namespace) -> dict[str, Any]:
    """What a program found, or its error."""
    command = [sys.executable, "-m", f"benchmarks.plan_accuracy.{module}"]
    command += ["--setting", str(number), "--seed", str(told.seed), "--runs", str(told.runs)]
    command += ["--workdir", str(told.workdir), *(["--quick"] if told.quick else [])]
    try:
        found = run_program(command, _log(told), LIMIT_S)
    except RivalError as error:
        say(f"{module}, {name}: {error}")
        return {"told": {"name": name}, "failed": str(error)}
    say(f"{module}, {name}: {found['said']}")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser("plan_accuracy", __doc__ or "", runs=1)
    parser.add_argument(
        "--part",
        type=_parts,
        default=PARTS,
        metavar="A,B",
        help=f"these only (default {','.join(PARTS)})",
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        default=Path(tempfile.gettempdir()) / "tightrun-benchmarks",
        help="where models and prompts are kept for the next time (default %(default)s)",
    )
    return parser


def _parts(text: str) -> tuple[str, ...]:
    names = PARTS if text == "all" else tuple(part.strip() for part in text.split(","))
    for name in names:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {', '.join(PARTS)}")
    return names


def _log(told: argparse.Namespace) -> Path:
    return Path(told.workdir) / "plan_accuracy.log"


MEASURE: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "settings": measure_settings,
    "choice": measure_choice,
}
TABLES: dict[str, Callable[[Sequence[Mapping[str, Any]]], str]] = {
    "settings": settings_table,
    "choice": choice_table,
}

if __name__ == "__main__":
    raise SystemExit(main())
