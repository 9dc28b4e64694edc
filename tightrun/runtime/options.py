"""What the engine is asked to run, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tightrun.policies.profile import Known

if TYPE_CHECKING:  # a plan asks for the same without importing torch
    from tightrun.runtime.tokenizer import Chat


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of a job file in plain numbers; None is what is found or measured.

    `gpu_memory`, `cpu_memory` and `disk` are capacities in bytes; `h2d`, `d2h`, `disk_read`,
    `disk_write` and the bandwidths bytes/s; `latency_s` passes before a transfer moves its first
    byte. `flops` is (rows of a matrix product, FLOP/s), ascending in the rows; empty: measured.
    """

    device: str
    gpu_memory: int | None = None
    cpu_memory: int | None = None
    disk: int | None = None
    h2d: float | None = None
    d2h: float | None = None
    disk_read: float | None = None
    disk_write: float | None = None
    latency_s: float | None = None
    host_bandwidth: float | None = None
    device_bandwidth: float | None = None
    flops: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What to run and within which limits.

    `gpu_memory` and `cpu_memory` are a share of what may be used (float) or bytes (int); with a
    `machine` whose capacity is given, bytes within it. `disk` is bytes of disk that may hold what
    fits neither (None: as many as there are), `spill` the folder for weights that must be
    converted before they can be read. `device` is what computes; for an emulated one the CPU.
    `planned_share` of what torch may take of a GPU is planned with, less than 1.0 where memory ran
    out before (see `second_try`). `recompute` is the forced share of the context off the device,
    None: decided every pass. `prompt_bytes` is the length of the longest prompt, where it is known;
    `prompts`, `outputs` and `expected_output` are tokens as in a Workload; `known` spares the
    probes. `kernel_cache` is the folder compiled kernels are kept in (None: plain torch only),
    `compiler` the user's $CXX.
    """

    model: str
    revision: str | None = None
    dtype: str = "auto"
    tokenizer: str | None = None
    trust_remote_code: bool = False
    device: str = "auto"
    gpu_memory: float | int = 0.9
    planned_share: float = 1.0
    cpu_memory: float | int = 0.8
    disk: int | None = None
    spill: Path | None = None
    machine: Machine | None = None
    context: int | None = None
    policy: str = "adaptive"
    recompute: float | None = None
    recompute_form: str = "auto"
    batch_size: int | None = None
    batches: int | None = None
    chat: Chat = "auto"
    system: str | None = None
    on_overflow: str = "error"
    sampling_n: int = 1
    max_tokens: int = 256
    rows: int | None = None
    prompt_bytes: int | None = None
    prompts: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    expected_output: int | None = None
    known: Known | None = None
    kernel_cache: Path | None = None
    compiler: str | None = None
    poison: bool = False
