"""The settings that predictions are tried on: models, budgets, links, lengths and policies.

Each is drawn from ranges that make one resource the busiest: its link, disk or contexts are given
so many times the work of computing, or so small a part of it, by what a nominal machine computes.
What really was the busiest is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from benchmarks.plan_accuracy.models import Shape
from benchmarks.workloads import Workload

Aim = Literal["compute", "link", "disk", "memory"]
Range = tuple[float, float]

# What two cores do in float32, to size the jobs with: FLOP/s of wide and of decoding passes,
# bytes/s of contexts and of a disk.
NOMINAL_PREFILL, NOMINAL_DECODE, NOMINAL_CONTEXT, NOMINAL_DISK = 80e9, 40e9, 8e9, 1e9
# Copying threads take from computing what they copy: both links together stay below 1 GB/s.
SLOWEST_LINK, FASTEST_LINK, FASTEST_OUT = 20e6, 700e6, 250e6
SECONDS, CHOICE_SECONDS, QUICK_SECONDS = 10.0, 4.0, 1.0
MOST_TOGETHER = 192
PASSING_ROWS = 768
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Setting:
    """One job on one machine. `lengths` are (prompt, output) tokens of every row, `hardware` the
    machine of the job file; `aim` is what it was drawn to be bound by."""

    name: str
    aim: Aim
    shape: Shape
    lengths: tuple[tuple[int, int], ...]
    hardware: dict[str, Any]
    policy: str

    @property
    def context(self) -> int:
        """Tokens of the longest row."""
        return max(prompt + output for prompt, output in self.lengths)

    @property
    def output_tokens(self) -> int:
        return sum(output for _, output in self.lengths)

    @property
    def alike(self) -> bool:
        """Whether all rows have the same lengths."""
        return len(set(self.lengths)) == 1


@dataclass(frozen=True, slots=True)
class Slot:
    """What a setting is drawn from; ranges are (least, most).

    `weights` is the share of the layers that fits the device, `kv` that of the contexts that run
    together; `busy` how long the link (of the disk slots: the disk) takes for what does not fit,
    over what a pass computes. `waves` is how often the places are filled.
    """

    name: str
    aim: Aim
    family: str
    policy: str = "adaptive"
    prompts: Range = (64, 128)
    outputs: Range = (32, 64)
    alike: bool = True
    weights: Range = (1.0, 1.0)
    kv: Range = (1.0, 1.0)
    busy: Range = (0.2, 0.4)
    waves: Range = (1.0, 1.0)
    tier: Literal["host", "disk", "cpu"] = "host"


SLOTS = (
    Slot("grouped queries, a part of the weights", "compute", "grouped", weights=(0.7, 0.85)),
    Slot("wide, static", "compute", "wide", "static", weights=(0.75, 0.9)),
    Slot("experts, all resident", "compute", "experts", alike=False, waves=(2.0, 3.0)),
    Slot("deep and narrow, all resident", "compute", "deep", alike=False, waves=(2.0, 3.0)),
    Slot("grouped queries, slow link", "link", "grouped", weights=(0.0, 0.2), busy=(3.0, 4.0)),
    Slot("grouped queries, contexts in host memory", "link", "grouped",
         prompts=(96, 160), kv=(0.1, 0.3), busy=(1.8, 2.6)),
    Slot("wide, sync", "link", "wide", "sync", weights=(0.0, 0.2), busy=(2.0, 3.0)),
    Slot("many heads, static, contexts in host memory", "link", "many", "static",
         prompts=(32, 64), weights=(0.0, 0.2), kv=(0.5, 0.7), busy=(3.0, 4.0), alike=False),
    Slot("grouped queries, slow disk", "disk", "grouped",
         weights=(0.0, 0.2), busy=(6.0, 8.0), tier="disk"),
    Slot("experts, slow disk", "disk", "experts",
         weights=(0.0, 0.2), busy=(3.0, 4.0), tier="disk", alike=False),
    Slot("wide, the processor's own disk", "disk", "wide",
         weights=(0.1, 0.3), busy=(9.0, 12.0), tier="cpu"),
    Slot("long contexts, all resident", "memory", "contexts",
         prompts=(512, 768), outputs=(128, 192)),
    Slot("long contexts, static, half the weights", "memory", "contexts", "static",
         prompts=(512, 768), outputs=(128, 192), weights=(0.3, 0.6)),
)  # fmt: skip

# Those on which other plans are run too: what each is bound by is another.
CHOICES = (
    "grouped queries, a part of the weights",
    "grouped queries, slow link",
    "grouped queries, slow disk",
    "long contexts, all resident",
)


def draw(seed: int, job_s: float = SECONDS) -> list[Setting]:
    """The settings of a seed, one of each slot, with jobs of about so many seconds."""
    return [draw_setting(slot, Random(f"{seed} {slot.name}"), job_s) for slot in SLOTS]


def draw_setting(slot: Slot, random: Random, job_s: float) -> Setting:
    """One setting out of the slot's ranges."""
    shape = FAMILIES[slot.family](random)
    prompt = round(random.uniform(*slot.prompts))
    output = round(random.uniform(*slot.outputs))
    weights, kv = random.uniform(*slot.weights), random.uniform(*slot.kv)
    busy, waves = random.uniform(*slot.busy), random.uniform(*slot.waves)
    together = places(slot, shape, prompt, output, busy, job_s / waves, weights)
    workload = Workload(slot.name, prompt, output, slot.alike)
    lengths = tuple(workload.rows(round(waves * together), random.randrange(2**31)))
    held = together * (prompt + output) * shape.kv_bytes_per_token
    hardware = machine(slot, shape, weights, kv, held, together, busy, prompt + output / 2)
    return Setting(slot.name, slot.aim, shape, lengths, hardware, slot.policy)


def token_seconds(shape: Shape, context: float) -> float:
    """Nominal seconds of one token of a decode pass in which nothing is waited for."""
    read = shape.kv_bytes_per_token * context
    return shape.flops_per_token / NOMINAL_DECODE + read / NOMINAL_CONTEXT


def places(
    slot: Slot, shape: Shape, prompt: int, output: int, busy: float, wave_s: float, weights: float
) -> int:
    """Sequences that run together, so many that a wave of them takes about `wave_s`."""
    if slot.tier == "cpu":  # the disk is as fast as it is: so few that it is the busiest
        streamed = (1 - weights) * shape.weight_bytes
        compute_s = streamed / NOMINAL_DISK / busy
        return max(1, round(compute_s / token_seconds(shape, prompt + output / 2)))
    decode_s = token_seconds(shape, prompt + output / 2) * max(1.0, busy)
    prefill_s = shape.flops_per_token / NOMINAL_PREFILL * prompt
    return max(4, min(MOST_TOGETHER, round(wave_s / (prefill_s + output * decode_s))))


def machine(
    slot: Slot,
    shape: Shape,
    weights: float,
    kv: float,
    held: float,
    together: int,
    busy: float,
    context: float,
) -> dict[str, Any]:
    """The machine of the job file: memories for the shares, links so busy by what is left over.

    `held` are the bytes of all contexts that run together.
    """
    streamed = (1 - weights) * shape.weight_bytes
    slots = 2 * shape.layer_bytes if streamed else 0
    passing = shape.passing_bytes(PASSING_ROWS) + 6 * together * shape.vocab
    device = shape.outer_bytes + shape.weight_bytes - streamed + slots + kv * held + passing
    if slot.tier == "cpu":
        return {"device": "cpu", "cpu_memory": _mebibytes(device)}
    pass_s = busy * together * token_seconds(shape, context)
    away = (1 - kv) * together * context * shape.kv_bytes_per_token
    told: dict[str, Any] = {"device": "emulated", "gpu_memory": _mebibytes(device)}
    link = FASTEST_LINK if slot.tier == "disk" else (streamed + away) / pass_s
    link = min(FASTEST_LINK, max(SLOWEST_LINK, link or FASTEST_LINK))
    told |= {"h2d": _megabytes(link), "d2h": _megabytes(min(link, FASTEST_OUT))}
    if slot.tier == "disk":
        told["cpu_memory"] = _mebibytes(2.5 * shape.layer_bytes + 0.1 * streamed)
        told["disk_read"] = _megabytes(min(FASTEST_LINK / 2, max(SLOWEST_LINK, streamed / pass_s)))
    return told


def _mebibytes(nbytes: float) -> str:
    return f"{math.ceil(nbytes / MIB)}MiB"


def _megabytes(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e6:.0f}MB/s"


def _many(random: Random) -> Shape:
    heads = random.choice((10, 12, 14))
    return _llama(64 * heads, random.randint(6, 9), heads, heads)


def _grouped(random: Random) -> Shape:
    heads = random.choice((8, 12))
    return _llama(64 * heads, random.randint(9, 12), heads, heads // 4)


def _wide(random: Random) -> Shape:
    heads = random.choice((8, 12))
    return _llama(128 * heads, random.randint(5, 7), heads, heads // 4)


def _deep(random: Random) -> Shape:
    heads = random.choice((4, 6))
    return _llama(64 * heads, random.randint(24, 32), heads, 2)


def _experts(random: Random) -> Shape:
    heads, layers = random.choice((6, 8)), random.randint(5, 7)
    return Shape(64 * heads, layers, heads, heads // 2, 64, 64 * random.randint(8, 12), experts=8)


def _contexts(random: Random) -> Shape:
    """Wide keys and values before small products."""
    return Shape(64 * random.choice((4, 5)), random.randint(6, 8), 16, 16, 64, 512)


def _llama(hidden: int, layers: int, heads: int, kv_heads: int) -> Shape:
    """The feed-forward network of Llama: 2.7 times as wide, rounded to 64."""
    return Shape(hidden, layers, heads, kv_heads, hidden // heads, round(2.7 * hidden / 64) * 64)


FAMILIES: dict[str, Callable[[Random], Shape]] = {
    "many": _many,
    "grouped": _grouped,
    "wide": _wide,
    "deep": _deep,
    "experts": _experts,
    "contexts": _contexts,
}
