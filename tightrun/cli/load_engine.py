"""From a job and the scan of its input to a loaded engine; the one door of the command line to
torch, which is imported here and not before."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tightrun.cli.capacities import disk_within, memory_within
from tightrun.cli.engine_seam import Engine, Notify, RefusedError
from tightrun.io.inputs import Scan
from tightrun.io.job import Job, Machine
from tightrun.policies.plan import DoesNotFitError, Workload

if TYPE_CHECKING:
    from tightrun.runtime.options import EngineOptions
    from tightrun.runtime.options import Machine as MachineOptions

LOADING = "loading"
WARM_UP = "warm-up"


def load_engine(
    job: Job, scan: Scan, rows: int, notify: Notify, workload: Workload | None = None
) -> Engine:
    """The engine for the first `rows` rows of the input; `workload` is what is known of them.

    Raises RefusedError for a model or device that cannot be used, DoesNotFitError with the sum
    when memory does not suffice.
    """
    # torch reads it at its first allocation: huge pages where the system offers them.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from tightrun.cli.known import KnownHere
    from tightrun.runtime.engine import Engine as RealEngine

    here = KnownHere(job, notify)
    known = here.begin_with()
    options = replace(engine_options(job, scan, rows, workload), known=known)
    try:
        engine = RealEngine.load(options, notify)
    except DoesNotFitError:
        raise
    except ValueError as error:
        raise RefusedError(str(error)) from error
    found = engine.known()
    if found is not None and found != known:
        here.keep(found)
    return engine


def engine_options(
    job: Job, scan: Scan, rows: int, workload: Workload | None = None
) -> EngineOptions:
    """What the job asks of the engine, in plain numbers."""
    from tightrun.runtime.options import EngineOptions

    machine = job.hardware if isinstance(job.hardware, Machine) else None
    spill = spill_folder(os.environ)
    return EngineOptions(
        model=job.model.path,
        revision=job.model.revision,
        dtype=job.model.dtype,
        tokenizer=job.model.tokenizer,
        trust_remote_code=job.model.trust_remote_code,
        device=torch_device(job),
        machine=machine_options(machine) if machine else None,
        gpu_memory=memory_within(job.limits.gpu_memory, machine.gpu_memory if machine else None),
        cpu_memory=memory_within(job.limits.cpu_memory, machine.cpu_memory if machine else None),
        disk=disk_within(job.limits.disk, machine.disk if machine else None, spill),
        spill=spill,
        context=job.limits.context,
        policy=job.policy.name,
        recompute=job.policy.recompute,
        recompute_form=job.policy.recompute_form,
        batch_size=job.policy.batch_size,
        batches=job.policy.batches,
        chat=job.input.chat,
        system=job.input.system,
        on_overflow=job.on_overflow,
        sampling_n=job.sampling.n,
        max_tokens=job.sampling.max_tokens,
        rows=rows,
        prompt_bytes=longest_prompt_bytes(job, scan, rows),
        prompts=workload.prompts if workload else (),
        outputs=workload.outputs if workload else (),
        expected_output=workload.typical_output if workload else None,
        kernel_cache=cache_folder(os.environ) / "kernels",
        compiler=os.environ.get("CXX"),
    )


def torch_device(job: Job) -> str:
    """The name of the device that computes: an emulated one is the CPU."""
    if not isinstance(job.hardware, Machine):
        return job.hardware
    return "cpu" if job.hardware.device == "emulated" else job.hardware.device


def machine_options(machine: Machine) -> MachineOptions:
    """The machine of the job file as the engine takes it; None stays what is to be measured."""
    from tightrun.runtime.options import Machine as MachineOptions

    return MachineOptions(
        device=machine.device,
        gpu_memory=machine.gpu_memory,
        cpu_memory=machine.cpu_memory,
        disk=machine.disk,
        h2d=machine.h2d,
        d2h=machine.d2h,
        disk_read=machine.disk_read,
        disk_write=machine.disk_write,
        latency_s=None if machine.latency_us is None else machine.latency_us / 1e6,
        host_bandwidth=machine.host_bandwidth,
        device_bandwidth=machine.device_bandwidth,
        flops=tuple(sorted(machine.flops.items())),
    )


def longest_prompt_bytes(job: Job, scan: Scan, rows: int) -> int | None:
    """Bytes of the longest prompt, system prompt and template included; None where rows may set
    their own `max_tokens`, so that the length of a sequence is not known from its prompt."""
    if scan.format in ("openai-batch", "mixed") or "sampling_params" in scan.columns or not rows:
        return None
    around = (job.input.system or "") + (job.input.template or "")
    return int(scan.lengths[:rows].max()) + len(around.encode())


def spill_folder(environment: Mapping[str, str]) -> Path:
    """Where weights are kept that were converted once, for every later run of their model."""
    return cache_folder(environment) / "slabs"


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where what was built once is kept for the next run."""
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tightrun"
