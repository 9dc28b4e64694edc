"""The memories and processors that this process may use, found without importing torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tightrun.policies.hardware import Budget, Hardware
from tightrun.runtime.host_memory import hold_to, host_budget
from tightrun.runtime.nvidia import gpu_memory, visible_gpus
from tightrun.runtime.processors import usable_processors
from tightrun.runtime.system import System
from tightrun.runtime.torch_build import cuda_version

if TYPE_CHECKING:
    from tightrun.runtime.options import Machine

PIECES = 64


def find_hardware(
    device: str,
    gpu: float | int,
    cpu: float | int,
    machine: Machine | None = None,
    *,
    here: bool = True,
    system: System | None = None,
) -> Hardware:
    """What a job finds on `device` (auto, cpu, cuda or cuda:0), within `limits` of `gpu` and `cpu`,
    each a share (float) or bytes (int), or on a `machine` that the job describes.

    A machine that is not `here` is taken at its word; of one that is, no more is promised than can
    be found. An emulated one is what it is said to be, anywhere.
    Raises ValueError for a device that is not there, or has no size.
    """
    system = system or System()
    if machine is None:
        return detect_hardware(device_name(device, system), gpu, cpu, system)
    if machine.device == "emulated" or not here:
        return _described(machine, gpu, cpu, system)
    name = device if device.startswith(machine.device) else machine.device
    found = detect_hardware(device_name(name, system), gpu, cpu, system)
    host = _as_given(found.host_memory, machine.cpu_memory, "cpu_memory")
    gpu_given = _as_given(found.device_memory, machine.gpu_memory, "gpu_memory")
    own = host if machine.device == "cpu" else gpu_given
    return Hardware(found.device, own, host, found.cores)


def detect_hardware(
    device: str, gpu: float | int, cpu: float | int, system: System | None = None
) -> Hardware:
    """The memories and processors of this process as they are now, for `cpu` or `cuda:N`."""
    system = system or System()
    host = host_budget(cpu, system)
    own = in_pieces(device_budget(device, gpu, system)) if device.startswith("cuda") else host
    return Hardware(device, own, host, usable_processors(system.affinity(), system.root).count)


def in_pieces(budget: Budget) -> Budget:
    """What can be planned with of a GPU's memory: torch's allocator gives it out in pieces, and
    something is left between them. Seen on 16 GiB of an H200: 1.4 %."""
    return replace(budget, bytes=budget.bytes - budget.bytes // PIECES)


def device_budget(device: str, asked: float | int, system: System) -> Budget:
    """Bytes of the memory of GPU `cuda:N` that may be used: what is free, held to what was asked.

    Raises ValueError if it is not there or the driver does not tell and no bytes were asked for.
    """
    number = int(device.partition(":")[2] or 0)
    free = gpu_memory(number, system.environment, system.nvml())
    if free is not None:
        return hold_to(asked, free, "limits.gpu_memory")
    if isinstance(asked, float):
        raise ValueError(
            f"the driver does not tell how much memory of {device} is free; give bytes instead of "
            "a share, such as limits: {gpu_memory: 20GiB}"
        )
    return Budget(asked, "limits.gpu_memory (the driver does not tell what is free)")


def device_name(asked: str, system: System) -> str:
    """`cpu` or `cuda:N`; auto takes a GPU if the driver shows one and torch was built for it."""
    if asked == "cpu":
        return asked
    can_use_gpu = cuda_version() is not None
    if asked == "auto":
        seen = can_use_gpu and visible_gpus(system.environment, system.nvml())
        return "cuda:0" if seen else "cpu"
    if not can_use_gpu:
        raise ValueError(
            f"hardware: {asked} was asked for, but the installed torch cannot use a GPU; install a "
            "CUDA build of torch, or use hardware: cpu or auto"
        )
    return "cuda:0" if asked == "cuda" else asked


def _as_given(found: Budget, given: int | None, name: str) -> Budget:
    """Names the machine's capacity as the limit where that is what was held to."""
    is_given = given is not None and found.limit == f"limits.{name}"
    return Budget(found.bytes, f"hardware.{name}") if is_given else found


def _described(machine: Machine, gpu: float | int, cpu: float | int, system: System) -> Hardware:
    if machine.cpu_memory is None:
        host = host_budget(cpu, system)
    else:
        host = Budget(int(cpu), "hardware.cpu_memory")
    cores = usable_processors(system.affinity(), system.root).count
    if machine.device == "cpu":
        return Hardware("cpu", host, host, cores)
    if machine.gpu_memory is None:
        kind = "an emulated device" if machine.device == "emulated" else "a described GPU"
        raise ValueError(f"hardware: {kind} needs gpu_memory, such as 400MiB")
    name = "emulated" if machine.device == "emulated" else "cuda:0"
    return Hardware(name, Budget(int(gpu), "hardware.gpu_memory"), host, cores)
