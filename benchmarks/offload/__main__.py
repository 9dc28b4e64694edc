"""What offloading reaches on this machine: emulated accelerator and disk.

slices: weights streamed behind 2, 4, 8 and 16 batches a pass, against FlexGen's schedule and
loading them anew for each batch. recompute: replayed or projected context, against fetching all of
it and ten fixed ratios. disk: a model of four gigabytes from a disk, against accelerate's offload.
A part that is left out keeps today's earlier figures of the same machine.
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
from benchmarks.offload.tables import disk_table, recompute_table, slices_table
from benchmarks.report import RESULTS, publish, say
from benchmarks.turns import RivalError, run_program

PEERS = ("accelerate",)
PARTS = ("slices", "recompute", "disk")
PACKAGES = ("tightrun", "torch", "transformers", "accelerate", "numpy")
TRIPLES = 7
FEWER_TRIPLES = 3
BATCHES = (2, 4, 8, 16)  # of a pass
QUICK_BATCHES = (2, 8)
SEQUENCES, QUICK_SEQUENCES = 512, 128
FORMS = ("tokens", "activations")
Part = Callable[[argparse.Namespace], dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the parts asked for, prints and writes the result; 1 if one of them has none."""
    told = _parser().parse_args(arguments)
    told.workdir.mkdir(parents=True, exist_ok=True)
    say(f"what the programs say goes to {_log(told)}")
    machine = hardware()
    name = "offload-quick" if told.quick else "offload"
    result: dict[str, Any] = {
        "benchmark": "offload",
        **dict.fromkeys(PARTS),
        **earlier(name, hardware_name(machine)),
        "hardware": machine,
        "versions": versions(PACKAGES),
        "seed": told.seed,
    }
    failed = False
    for part in told.part:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        found = beside_earlier(part, result[part] or {}, MEASURE[part](told))
        result[part] = {"measured": when, **found}
        print(TABLES[part](result[part]), end="\n\n", flush=True)
        failed |= bool(result[part].get("errors"))
    publish(result, name, hardware_name(machine))
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser("offload", __doc__ or "", peers=PEERS, runs=TRIPLES)
    parser.add_argument(
        "--part",
        type=_parts,
        default=PARTS,
        metavar="A,B",
        help=f"these only (default {','.join(PARTS)})",
    )
    parser.add_argument(
        "--batches", type=_numbers, default=None, metavar="2,4", help="slices: these K only"
    )
    parser.add_argument(
        "--sequences",
        type=int,
        default=None,
        metavar="N",
        help=f"slices: sequences of a pass (default {SEQUENCES}; fewer where products are slow)",
    )
    parser.add_argument(
        "--form", type=_forms, default=FORMS, metavar="A,B", help="recompute: these forms only"
    )
    parser.add_argument(
        "--fixed", type=int, default=10, metavar="N", help="recompute: N fixed ratios (default 10)"
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        default=Path(tempfile.gettempdir()) / "tightrun-benchmarks",
        help="where models and prompts are kept for the next time (default %(default)s)",
    )
    return parser


def _parts(text: str) -> tuple[str, ...]:
    return PARTS if text == "all" else _named(text, PARTS)


def _forms(text: str) -> tuple[str, ...]:
    return _named(text, FORMS)


def _named(text: str, known: Sequence[str]) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {', '.join(known)}")
    return names


def _numbers(text: str) -> tuple[int, ...]:
    known = [str(batches) for batches in BATCHES]
    return tuple(int(name) for name in _named(text, known))


def earlier(name: str, machine: str, folder: Path = RESULTS) -> dict[str, Any]:
    """The parts in today's result of this machine; nothing if there is none."""
    path = folder / f"{name}-{machine}-{datetime.now(UTC):%Y-%m-%d}.json"
    if not path.is_file():
        return {}
    found = json.loads(path.read_text())
    return {part: found[part] for part in PARTS if found.get(part) is not None}


def beside_earlier(part: str, kept: Mapping[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What a part has found now, with today's earlier figures of what was left out of it."""
    if part == "slices":
        return {**{name: kept[name] for name in kept if name.isdigit()}, **_ran(new)}
    if part == "recompute":
        forms = {**kept.get("forms", {}), **_ran(new["forms"])}
        return {**recompute_figures(forms), "forms": forms, "errors": new["errors"]}
    return new


def _ran(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: shown for name, shown in found.items() if shown is not None}


def measure_slices(told: argparse.Namespace) -> dict[str, Any]:
    """A child for each number of batches."""
    found: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for batches in told.batches or (QUICK_BATCHES if told.quick else BATCHES):
        rows = told.sequences or (QUICK_SEQUENCES if told.quick else SEQUENCES)
        triples = told.runs if batches == max(QUICK_BATCHES) else min(told.runs, FEWER_TRIPLES)
        flags = ["--batches", str(batches), "--rows", str(rows // batches)]
        flags += ["--triples", str(1 if told.quick else triples)]
        _child("slices", str(batches), flags, told, found, errors)
    return {**found, "errors": errors}


def measure_recompute(told: argparse.Namespace) -> dict[str, Any]:
    """A child for each form; the figures of the contract beside everything that was found."""
    found: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for form in told.form:
        _child("recompute", form, ("--form", form, "--fixed", str(told.fixed)), told, found, errors)
    return {**recompute_figures(found), "forms": found, "errors": errors}


def recompute_figures(found: Mapping[str, Mapping[str, Any] | None]) -> dict[str, float | None]:
    """Gains, gains over the ideal ones, and the worse of the two against the best fixed ratio."""
    ran = {form: shown for form, shown in found.items() if shown is not None}
    figures: dict[str, float | None] = {}
    for form in FORMS:
        shown = ran.get(form, {})
        figures |= {form: shown.get("gain"), f"{form}_of_ideal": shown.get("of_ideal")}
    worst = min((shown["vs_best_fixed"] for shown in ran.values()), default=None)
    return {**figures, "adaptive_vs_best_fixed": worst}


def measure_disk(told: argparse.Namespace) -> dict[str, Any]:
    """One child."""
    found: dict[str, Any] = {}
    errors: dict[str, str] = {}
    _child("disk", "disk", ("--peers", ",".join(told.peers)), told, found, errors)
    none = dict.fromkeys(("accelerate", "accelerate_cached", "bound_share"))
    return {**(found["disk"] or none), "errors": errors}


def _child(
    module: str,
    name: str,
    flags: Sequence[str],
    told: argparse.Namespace,
    found: dict[str, Any],
    errors: dict[str, str],
) -> None:
    """Enters what a part's program found under `name`, or None and its error."""
    command = [sys.executable, "-m", f"benchmarks.offload.{module}", *flags]
    command += ["--seed", str(told.seed), "--workdir", str(told.workdir)]
    command += ["--quick"] if told.quick else []
    say(f"{module} {name} ...")
    try:
        found[name] = run_program(command, _log(told))
    except RivalError as error:
        found[name] = None
        errors[name] = str(error)
        say(f"{module} {name}: {error}")


def _log(told: argparse.Namespace) -> Path:
    return Path(told.workdir) / "offload.log"


MEASURE: dict[str, Part] = {
    "slices": measure_slices,
    "recompute": measure_recompute,
    "disk": measure_disk,
}
TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "slices": slices_table,
    "recompute": recompute_table,
    "disk": disk_table,
}

if __name__ == "__main__":
    raise SystemExit(main())
