"""Where each of several processes on one machine computes: its GPU, processors and host memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tightrun.cli.capacities import memory_within
from tightrun.cli.engine_seam import RefusedError
from tightrun.cli.load_engine import machine_options, torch_device
from tightrun.io.job import Job
from tightrun.io.job_sections import Machine
from tightrun.runtime.limits import device_name, find_hardware
from tightrun.runtime.nvidia import visible_gpus
from tightrun.runtime.system import System


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """`environment` is what to add to that of the process, `processors` those that it may use."""

    host_bytes: int
    processors: tuple[int, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def worker_places(job: Job, workers: int | None, system: System) -> list[WorkerPlace]:
    """A place for each of `workers` processes; None for one per GPU that the job may use, or one.

    Host memory is divided equally, and so are the processors where there are enough of them.
    Raises RefusedError for more processes than GPUs, or a device that is not there.
    """
    try:
        return _places(job, workers, system)
    except ValueError as error:
        raise RefusedError(str(error)) from error


def _places(job: Job, workers: int | None, system: System) -> list[WorkerPlace]:
    emulated = isinstance(job.hardware, Machine) and job.hardware.device == "emulated"
    device = "cpu" if emulated else device_name(torch_device(job), system)
    gpus = [] if device == "cpu" else visible_gpus(system.environment, system.nvml())
    if workers is None:
        workers = max(1, len(gpus))
    if device != "cpu" and workers > len(gpus):
        raise ValueError(
            f"--workers {workers}: there is one process for each GPU, and CUDA sees {len(gpus)}"
        )
    if torch_device(job).startswith("cuda:") and workers > 1:
        raise ValueError(
            f"--workers {workers}: hardware: {torch_device(job)} is one GPU; use hardware: cuda"
        )
    host_bytes = _host_bytes(job, device, system) // workers
    return [
        WorkerPlace(
            host_bytes,
            _part(sorted(system.affinity()), number, workers),
            {"CUDA_VISIBLE_DEVICES": gpus[number].uuid} if gpus else {},
        )
        for number in range(workers)
    ]


def _host_bytes(job: Job, device: str, system: System) -> int:
    machine = job.hardware if isinstance(job.hardware, Machine) else None
    gpu = memory_within(job.limits.gpu_memory, machine.gpu_memory if machine else None)
    cpu = memory_within(job.limits.cpu_memory, machine.cpu_memory if machine else None)
    described = machine_options(machine) if machine else None
    return find_hardware(device, gpu, cpu, described, system=system).host_memory.bytes


def _part(processors: list[int], number: int, of: int) -> tuple[int, ...]:
    if len(processors) < of:
        return tuple(processors)
    bounds = [len(processors) * n // of for n in (number, number + 1)]
    return tuple(processors[bounds[0] : bounds[1]])
