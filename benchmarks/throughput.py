"""Output tokens/s of tightrun and of other tools on one job that fits into memory.

64 random prompts of 32-383 tokens, 64 new tokens each, a random Llama of 246 M parameters in
bfloat16 on the CPU. tightrun reads and writes files and text; the others are given token ids in
memory and give back token ids, which costs them less.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.arguments import benchmark_parser
from benchmarks.jobs import FULL, QUICK, JobSize, PreparedJob, dense_flops, prepare
from benchmarks.machine import hardware, hardware_name, versions
from benchmarks.report import median_of, number, publish, ratios_to, say, table
from benchmarks.turns import (
    Measurement,
    Rival,
    RivalError,
    Standing,
    measurement,
    run_program,
    take_turns,
)

OURS = "tightrun"
PEERS = ("hf_generate", "hf_generate_sorted", "hf_continuous", "vllm_cpu")
RUNS, QUICK_RUNS = 5, 1
BATCH_SIZES = (16, 32, 64)
SORTED_BATCH_SIZES = (8, 16)
BATCH_TOKENS_AND_REQUESTS = ((256, 8), (256, 16))
VLLM_SETTINGS = {
    "compiled, one process": ("--in-process",),
    "eager, one process": ("--in-process", "--eager"),
    "compiled": (),
    "eager": ("--eager",),
}
PACKAGES = (OURS, "torch", "transformers", "numpy", "pyarrow")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and writes the result; 1 if tightrun itself has no figure."""
    told = _parser().parse_args(arguments)
    size = QUICK if told.quick else FULL
    log = told.workdir / "throughput.log"
    told.workdir.mkdir(parents=True, exist_ok=True)
    say(f"what the programs say goes to {log}")
    job = prepare(size, told.seed, told.workdir)
    rounds = told.runs or (QUICK_RUNS if told.quick else RUNS)
    rivals = [our_own(job), *(peer(name, job, told) for name in PEERS)]

    ceilings = [measure_ceiling(size, log)]
    standings = take_turns(rivals, rounds, lambda *turn: _run(*turn, job=job, log=log))
    ceilings.append(measure_ceiling(size, log))

    found = result(job, told.seed, standings, ceilings)
    print(people_table(standings))
    for name, error in found["errors"].items():
        print(f"{name} has no figure: {error}")
    if found["bound_share"] is not None:
        print(own_line(found))
    publish(found, "throughput-quick" if told.quick else "throughput", hardware_name(hardware()))
    return 0 if found["tokens_per_s"][OURS] is not None else 1


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser("throughput", __doc__, peers=PEERS, runs=RUNS)
    parser.set_defaults(runs=None)
    parser.add_argument(
        "--vllm-python", metavar="PATH", help="the interpreter of an environment with vllm-cpu"
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        default=Path(tempfile.gettempdir()) / "tightrun-benchmarks",
        help="where model and prompts are kept for the next time (default %(default)s)",
    )
    return parser


def our_own(job: PreparedJob) -> Rival:
    """tightrun through its command line."""
    command = _program(sys.executable, OURS + "_run", job.model, job.prompt_lines, job.size)
    return Rival(OURS, {"job file": [*command, "--workdir", str(job.folder)]})


def peer(name: str, job: PreparedJob, told: argparse.Namespace) -> Rival:
    """One of `PEERS` with every setting it is tried with."""
    if name not in told.peers:
        return Rival(name, {}, missing="left out by --peers")
    python: str | None = told.vllm_python if name == "vllm_cpu" else sys.executable
    if python is None:
        return Rival(name, {}, missing="no interpreter was given with --vllm-python")
    program = name.removesuffix("_sorted")
    command = _program(python, program, job.model, job.prompt_ids, job.size)
    return Rival(name, {setting: [*command, *flags] for setting, flags in _settings(name).items()})


def _settings(name: str) -> dict[str, tuple[str, ...]]:
    if name == "vllm_cpu":
        return dict(VLLM_SETTINGS)
    if name == "hf_generate":
        return {f"batch {size}": ("--batch-size", str(size)) for size in BATCH_SIZES}
    if name == "hf_generate_sorted":
        return {
            f"batch {size}, sorted": ("--batch-size", str(size), "--sort")
            for size in SORTED_BATCH_SIZES
        }
    return {
        f"{requests} requests, {tokens} tokens a pass": (
            *("--batch-tokens", str(tokens)),
            *("--requests", str(requests)),
        )
        for tokens, requests in BATCH_TOKENS_AND_REQUESTS
    }


def _program(python: str, module: str, model: Path, prompts: Path, size: JobSize) -> list[str]:
    files = ["--model", str(model), "--prompts", str(prompts)]
    return [
        python,
        "-m",
        f"benchmarks.rivals.{module}",
        *files,
        "--max-tokens",
        str(size.max_tokens),
    ]


def _run(
    rival: str, setting: str, command: Sequence[str], number: int, *, job: PreparedJob, log: Path
) -> Measurement:
    try:
        shown = measurement(run_program(command, log), number, setting, job.size.output_tokens)
    except RivalError as error:
        say(f"round {number + 1}, {rival} ({setting}): {error}")
        raise
    say(f"round {number + 1}, {rival} ({setting}): {shown.tokens_per_s:,.1f} tokens/s")
    return shown


def measure_ceiling(size: JobSize, log: Path) -> dict[int, float]:
    """FLOP/s of the best product of the model's shapes by rows; raises RivalError."""
    shapes = {*size.model.products.values(), (size.model.hidden, size.model.vocab)}
    names = [f"{inputs}x{outputs}" for inputs, outputs in sorted(shapes)]
    points = run_program([sys.executable, "-m", "benchmarks.ceiling", *names], log)["points"]
    best: dict[int, float] = {}
    for point in points:
        best[point["rows"]] = max(best.get(point["rows"], 0.0), point["flops_per_s"])
    return best


def result(
    job: PreparedJob,
    seed: int,
    standings: Sequence[Standing],
    ceilings: Sequence[Mapping[int, float]],
) -> dict[str, Any]:
    """Everything that was found, as formats.md says, with machine, versions and every run."""
    speeds = {standing.rival.name: standing.tokens_per_s for standing in standings}
    theirs = {name: speed for name, speed in speeds.items() if name != OURS}
    flops = dense_flops(job.size, job.lengths)
    best = max(rate for ceiling in ceilings for rate in ceiling.values())
    ours = next(standing for standing in standings if standing.rival.name == OURS)
    speed = ours.tokens_per_s
    return {
        "benchmark": "throughput",
        "tokens_per_s": speeds,
        "ratios": ratios_to(speed, theirs),
        "bound_share": None if speed is None else bound_share(flops, best, job.size, speed),
        "bound_tokens_per_s": job.size.output_tokens * best / flops,
        "best_product_flops_per_s": best,
        "dense_flops": flops,
        "tokens_per_s_by_outside_clock": median_of(
            [run.tokens / run.details["outside_seconds"] for run in ours.counted]
        ),
        "errors": {s.rival.name: s.error for s in standings if s.error is not None},
        "job": {"seed": seed, "prompt_tokens": job.prompt_tokens, **asdict(job.size)},
        "parameters": job.size.model.parameters,
        "hardware": hardware(),
        "versions": versions(PACKAGES),
        "settings": {s.rival.name: s.best_setting for s in standings},
        "failed_settings": {s.rival.name: s.failed_settings for s in standings},
        "runs": {s.rival.name: [run.as_json() for run in s.measured] for s in standings},
        "product_flops_per_s_by_rows": ceilings,
    }


def bound_share(flops: float, flops_per_s: float, size: JobSize, tokens_per_s: float) -> float:
    """The time that the job's dense FLOPs take at the best rate, over the time it took."""
    return (flops / flops_per_s) / (size.output_tokens / tokens_per_s)


def people_table(standings: Sequence[Standing]) -> str:
    """A row per rival: medians, extremes, how many times as fast tightrun is, peak memory."""
    ours = next(s.tokens_per_s for s in standings if s.rival.name == OURS)
    header = ("", "tokens/s", "lowest", "highest", "runs", "tightrun is", "peak GiB", "setting")
    return table(header, [_row(standing, ours) for standing in standings])


def _row(standing: Standing, ours: float | None) -> tuple[str, ...]:
    name, speed = standing.rival.name, standing.tokens_per_s
    if speed is None:
        return (name, *["-"] * 7)
    shown = [run.tokens_per_s for run in standing.counted]
    times = "" if ours is None or name == OURS else f"{ours / speed:.2f} x"
    peak = max(run.peak_bytes for run in standing.counted) / 2**30
    figures = (number(speed), number(min(shown)), number(max(shown)), str(len(shown)))
    return (name, *figures, times, number(peak), standing.best_setting or "")


def own_line(found: dict[str, Any]) -> str:
    """tightrun against its bound and against the outside clock."""
    return (
        f"tightrun reached {found['bound_share']:.1%} of the bound, "
        f"{found['bound_tokens_per_s']:,.1f} tokens/s: its dense FLOPs at "
        f"{found['best_product_flops_per_s'] / 1e9:,.0f} GFLOP/s. "
        f"By an outside clock it made {found['tokens_per_s_by_outside_clock']:,.1f} tokens/s."
    )


if __name__ == "__main__":
    raise SystemExit(main())
