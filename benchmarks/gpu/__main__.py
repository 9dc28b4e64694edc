"""tightrun on a GPU whose memory is smaller than the model: output tokens/s and the share of the
bound, against its own static and sync schedules, accelerate's CPU offload and FlexLLMGen.

Models have the shapes of known ones and random weights. Cases are taken in order until the time
is up; the others are null with that as their error. Without a GPU it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.arguments import benchmark_parser
from benchmarks.gpu.figures import case as case_result
from benchmarks.gpu.figures import left_out
from benchmarks.machine import hardware, hardware_name, versions
from benchmarks.report import number, publish, say, table
from benchmarks.turns import run_program

PEERS = ("static", "sync", "accelerate", "flexllmgen")
PACKAGES = ("tightrun", "torch", "transformers", "accelerate")
NO_DEVICE = 2
GIB = 2**30
MEMORIES = (16, 24)
MODELS = ("llama-2-13b", "llama-3-8b", "opt-30b", "qwen2.5-32b")
WORKLOADS = ("512-32", "sharegpt")
MINUTES = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and writes the result; 2 without a GPU, 1 if no case has a figure."""
    told = _parser().parse_args(arguments)
    device = device_name()
    if device is None:
        say("benchmarks.gpu needs a CUDA device and torch sees none here: nothing was measured")
        return NO_DEVICE
    ends = time.monotonic() + 60 * told.minutes
    told.workdir.mkdir(parents=True, exist_ok=True)
    log = told.workdir / "gpu.log"
    ceilings = run_program([sys.executable, "-m", "benchmarks.gpu.ceilings"], log)
    say(f"{device}: {ceilings}")
    cases: list[dict[str, Any]] = []
    for model in told.models:
        cases += measure_model(model, told, ends)
    machine = hardware(device)
    result = {
        "benchmark": "gpu",
        "device": device,
        "ceilings": ceilings,
        "cases": cases,
        "hardware": machine,
        "versions": versions(PACKAGES),
        "seed": told.seed,
    }
    print(cases_table(cases))
    publish(result, "gpu-quick" if told.quick else "gpu", hardware_name(machine))
    return 0 if any(case["tokens_per_s"] is not None for case in cases) else 1


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser("gpu", __doc__ or "", peers=PEERS, runs=1)
    add = parser.add_argument
    add("--models", type=_among(MODELS), default=MODELS, metavar="A,B", help="these only")
    add("--workloads", type=_among(WORKLOADS), default=WORKLOADS, metavar="A,B", help="these only")
    add("--memory", type=_sizes, default=MEMORIES, metavar="16,24", help="GiB of the GPU to use")
    add("--minutes", type=float, default=MINUTES, help="begin no case later (default %(default)s)")
    add("--flexllmgen-python", default=sys.executable, metavar="PATH",
        help="the interpreter of an environment with flexllmgen")  # fmt: skip
    add("--keep-models", action="store_true", help="do not delete a checkpoint after its cases")
    add("--workdir", type=Path, default=Path(tempfile.gettempdir()) / "tightrun-benchmarks",
        help="where models and prompts are made (default %(default)s)")  # fmt: skip
    return parser


def _among(known: Sequence[str]) -> Any:
    def chosen(text: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in text.split(",") if part.strip())
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"no {name!r}; there are {', '.join(known)}")
        return names

    return chosen


def _sizes(text: str) -> tuple[int, ...]:
    if not all(part.strip().isdigit() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of GiB such as 16,24")
    return tuple(int(part) for part in text.split(","))


def device_name() -> str | None:
    """The first CUDA device, None where torch sees none."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def measure_model(model: str, told: argparse.Namespace, ends: float) -> list[dict[str, Any]]:
    """All cases of a model; it is made first and deleted afterwards."""
    from benchmarks.gpu.cases import Case
    from benchmarks.gpu.models import SHAPES, kv_bytes, weight_bytes, why_not
    from benchmarks.random_model import ensure_model
    from benchmarks.workloads import WORKLOADS as KNOWN

    shape = SHAPES[model]
    config = shape.config()
    rows = 16 if told.quick else shape.rows
    wanted = [(KNOWN[name], memory * GIB) for name in told.workloads for memory in told.memory]
    tokens = max(sum(map(sum, w.rows(rows, told.seed))) for w, _ in wanted)
    why = why_not(weight_bytes(config), kv_bytes(config, tokens), told.workdir)
    why = why or (None if time.monotonic() < ends else "no time was left")
    if why is not None:
        say(f"{model} is left out: {why}")
        nothing = left_out(["adaptive", *told.peers], why)
        return [case_result(model, memory, w.name, nothing) for w, memory in wanted]
    say(f"making {model}")
    folder = ensure_model(
        told.workdir / f"{model}-seed-{told.seed}", config, told.seed, "cuda", True
    )
    try:
        return [
            measure_case(
                Case(model, shape, config, folder, memory, w, rows, told.seed, told.workdir),
                told,
                ends,
            )
            for w, memory in wanted
        ]
    finally:
        if not told.keep_models:
            shutil.rmtree(folder)


def measure_case(case: Any, told: argparse.Namespace, ends: float) -> dict[str, Any]:
    """Our policies and the rivals on one case, the slowest last, until the time is up."""
    from benchmarks.gpu.cases import run_accelerate, run_flexllmgen, run_policy

    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "adaptive": partial(run_policy, case, "adaptive"),
        "static": partial(run_policy, case, "static"),
        "accelerate": partial(run_accelerate, case),
        "flexllmgen": partial(run_flexllmgen, case, told.flexllmgen_python),
        "sync": partial(run_policy, case, "sync"),
    }
    late = {"error": "no time was left"}
    found = {
        name: run() if time.monotonic() < ends else late
        for name, run in runs.items()
        if name == "adaptive" or name in told.peers
    }
    return case_result(case.name, case.gpu_memory, case.workload.name, found)


def cases_table(cases: Sequence[dict[str, Any]]) -> str:
    """A row per case: our tokens/s, the share of the bound, how many times as fast we are."""
    header = ("model, GPU memory, workload", "tokens/s", "of bound", *(f"x {p}" for p in PEERS))
    rows = []
    errors = []
    for case in cases:
        name = f"{case['model']}, {case['gpu_memory'] / GIB:.0f} GiB, {case['workload']}"
        share = case["bound_share"]
        ratios = (number(case["ratios"].get(peer), 2) for peer in PEERS)
        shown = "-" if share is None else f"{share:.1%}"
        rows.append((name, number(case["tokens_per_s"]), shown, *ratios))
        errors += [f"{name}: {who} has no figure: {why}" for who, why in case["errors"].items()]
    return "\n".join([table(header, rows), *errors])


if __name__ == "__main__":
    raise SystemExit(main())
