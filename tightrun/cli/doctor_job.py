"""`tightrun doctor JOB.yaml`: how fast this machine is at what the job's model asks of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import orjson

from tightrun.cli import units
from tightrun.cli.known import known_for
from tightrun.cli.plan import say
from tightrun.cli.plan_json import hardware_json, model_json
from tightrun.cli.plan_text import model_line
from tightrun.cli.planning import hardware_of
from tightrun.cli.sections import Section, aligned, print_sections
from tightrun.io.job import load_job
from tightrun.policies.hardware import Hardware, Rates, WorkTimes
from tightrun.policies.profile import Known, Measured
from tightrun.policies.shape import ModelShape

# Rows of a pass that only decodes are seldom more.
_MOST_DECODE_ROWS = 256


def print_rates(
    file: Path,
    overrides: Sequence[str],
    *,
    refresh: bool,
    as_json: bool,
    out: TextIO | None = None,
) -> None:
    """Prints the rates of the job's machine for its model, as kept or measured now.

    Raises JobError or RefusedError for a job, a model or a device that cannot be used.
    """
    job = load_job(file, overrides=overrides)
    hardware = hardware_of(job)
    known = known_for(job, say, refresh=refresh)
    out = out or sys.stdout
    if as_json:
        print(orjson.dumps(rates_json(known, hardware)).decode(), file=out)
        return
    print_sections("What this machine can do for this model", rates_sections(known, hardware), out)


def rates_json(known: Known, hardware: Hardware) -> dict[str, object]:
    """All that is kept of the machine, and of the model what a plan shows."""
    return {
        "hardware": hardware_json(hardware, known.rates),
        "model": model_json(known.profile),
        "rates": asdict(known.rates),
        "measured": known.measured and asdict(known.measured),
    }


def rates_sections(known: Known, hardware: Hardware) -> Iterator[Section]:
    """The table of rates, and how they were found."""
    rates, shape = known.rates, known.profile.shape
    cores = f", {hardware.cores} processors" if hardware.cores else ""
    yield Section("model", [model_line(known.profile)])
    yield Section("machine", [f"{hardware.device}{cores}"])
    yield Section("measured", list(_how(known.measured, rates.work)))
    links = [
        (name, units.bandwidth(rate))
        for name, rate in (
            ("to the device", rates.h2d_bytes_per_s),
            ("from the device", rates.d2h_bytes_per_s),
            ("both at once", rates.duplex_bytes_per_s),
            ("from disk", rates.disk_bytes_per_s),
            ("device memory", rates.memory_bytes_per_s),
            ("host memory", rates.host_bytes_per_s),
        )
        if rate
    ]
    if hardware.device == "cpu":
        links = [(name, rate) for name, rate in links if name != "device memory"]
    yield Section("bytes", [*aligned([[*pair] for pair in links]), *_taken(rates)])
    yield Section("products", list(_products(rates, shape)))
    if rates.work is not None:
        yield Section("layers", list(_layers(rates.work, shape)))
        yield Section("attention", list(_attention(rates.work)))
        yield Section("beside", list(_beside(rates.work)))


def _how(measured: Measured | None, work: WorkTimes | None) -> Iterator[str]:
    if measured is None:
        yield "no: these are the rates that are given"
        return
    at = datetime.fromisoformat(measured.at)
    ago = units.duration(max(0.0, (datetime.now(UTC) - at).total_seconds()))
    how = "laid out beforehand, as where all of them stay in memory"
    if work is None or not work.packed:
        how = "as they lie where layers are streamed, or kept on a device"
    yield f"{at:%Y-%m-%d %H:%M} UTC, {ago} ago, in {units.duration(measured.seconds)}"
    yield f"with random weights, {how}"
    others = f"others took {units.percent(measured.others_share)} of the processors meanwhile"
    if measured.disturbed:
        yield f"{others}: expect these to be too low, and measure again with --refresh"
    else:
        yield others


def _taken(rates: Rates) -> Iterator[str]:
    if rates.disk_takes:
        takes, loses = units.percent(rates.disk_takes), units.percent(rates.disk_loses)
        yield f"reading the disk takes {takes} of computing meanwhile, and loses {loses} to it"


def _products(rates: Rates, shape: ModelShape) -> Iterator[str]:
    yield f"of {shape.hidden:,} x {shape.widest:,}, by rows:"
    yield from aligned([
        [units.count(rows), units.flops(rate), _kind(rows)] for rows, rate in rates.flops_per_s
    ])  # fmt: skip


def _layers(work: WorkTimes, shape: ModelShape) -> Iterator[str]:
    """A mean layer without its attention, and what comes after the last one."""
    yield f"one of {len(shape.layers)} without its attention, and the head with sampling, by rows:"
    layer, head = dict(work.layer_s), dict(work.head_s)
    rows = [["", "layer", "head", ""]]
    for count in sorted({*layer, *head}):
        times = (short_time(x[count]) if count in x else "" for x in (layer, head))
        rows.append([units.count(count), *times, _kind(count)])
    yield from aligned(rows)


def _attention(work: WorkTimes) -> Iterator[str]:
    if work.attention_s:
        yield f"{short_time(work.attention_s)} for each call, and"
    yield from aligned([
        ["decode", f"{units.bandwidth(work.attended_bytes_per_s)} of KV"],
        ["prefill", units.flops(work.attended_flops_per_s)],
    ])  # fmt: skip


def _beside(work: WorkTimes) -> Iterator[str]:
    yield f"{short_time(work.pass_s)} for each pass, {short_time(work.batch_s)} for each batch"
    if work.context_s:
        yield f"{short_time(work.context_s)} for each layer of a batch with context off the device"


def _kind(rows: int) -> str:
    return "decode" if rows <= _MOST_DECODE_ROWS else "prefill"


def short_time(seconds: float) -> str:
    """Seconds of what is short: 210 us, 3.4 ms, 1.2 s."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            value = seconds / scale
            return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return f"{seconds * 1e6:.0f} us"
