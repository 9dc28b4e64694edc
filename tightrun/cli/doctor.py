"""`tightrun doctor`: what a run would find on this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tightrun.cli import units
from tightrun.cli.load_engine import cache_folder

if TYPE_CHECKING:
    from tightrun.runtime.nvidia import Gpu

PACKAGES = ("tightrun", "torch", "transformers", "pyarrow", "datasets", "numpy")
UNPROVEN = (
    "tightrun's streaming has not yet been proven on a GPU: models that fit have run there, all "
    "else was tested and measured on the CPU and the emulated device only"
)
EMULATED = (
    "always: the CPU behind a device memory and links of given sizes, such as "
    "hardware: {device: emulated, gpu_memory: 8GiB, h2d: 12GB/s, d2h: 12GB/s}"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: `value` for programs, `text` for people."""

    name: str
    value: Any
    text: str


def print_findings(*, as_json: bool) -> None:
    """Prints everything found to standard output."""
    findings = [*versions(), *devices(), *memory(), *disk(), *kernels()]
    if as_json:
        print(orjson.dumps({finding.name: finding.value for finding in findings}).decode())
        return
    width = max(len(finding.name) for finding in findings) + 2
    for finding in findings:
        print(f"{finding.name:<{width}}{finding.text}")
    print(f"\nNote: {UNPROVEN}.")


def versions() -> Iterator[Finding]:
    """Python and the packages whose versions decide what works."""
    yield Finding("python", platform.python_version(), platform.python_version())
    for name in PACKAGES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = None
        yield Finding(name, version, version or "not installed")


def devices() -> Iterator[Finding]:
    """The processors, the emulated device, the GPUs that torch can use or the driver can see."""
    import torch

    from tightrun.runtime.processors import usable_processors

    found, name = usable_processors(os.sched_getaffinity(0)), _processor_name()
    features = torch.backends.cpu.get_cpu_capability()
    yield Finding(
        "cpu",
        {"name": name, "processors": found.count, "limit": found.limit, "capability": features},
        f"{name}, {found.count} processors may be used ({found.limit}), {features}",
    )
    yield Finding("emulated", True, EMULATED)
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    for number, gpu in enumerate(gpus):
        value = {"name": gpu.name, "bytes": gpu.total_memory}
        yield Finding(f"cuda:{number}", value, f"{gpu.name}, {units.size(gpu.total_memory)}")
    if gpus:
        return
    seen, problem = _driver_gpus()
    text = problem or "none; the job runs on the CPU"
    if seen:
        text = (
            f"{', '.join(gpu.name for gpu in seen)} seen by the driver, but not by "
            f"torch {torch.__version__}: install a CUDA build of torch"
        )
    yield Finding("gpu", [gpu.name for gpu in seen], text)


def memory() -> Iterator[Finding]:
    """How much this process may use at the default limits, and which limit says so."""
    from tightrun.io.job_sections import LimitsSpec
    from tightrun.runtime.host_memory import host_budget, host_limits
    from tightrun.runtime.limits import device_budget
    from tightrun.runtime.rlimits import lockable_memory
    from tightrun.runtime.system import System

    limits, system = LimitsSpec(), System()
    budget = host_budget(limits.cpu_memory.value, system)
    every = sorted(host_limits(system), key=lambda limit: limit.bytes)
    others = "".join(f"; {limit.limit} allows {units.size(limit.bytes)}" for limit in every[1:])
    value = asdict(budget) | {"found": [asdict(limit) for limit in every]}
    yield Finding("memory", value, f"{units.size(budget.bytes)}: {budget.limit}{others}")
    for number, gpu in enumerate(_driver_gpus()[0]):
        name = f"memory cuda:{number}"
        if gpu.free_bytes is None:
            yield Finding(name, None, f"the driver does not tell what of {gpu.name} is free")
            continue
        own = device_budget(f"cuda:{number}", limits.gpu_memory.value, system)
        yield Finding(name, asdict(own), f"{units.size(own.bytes)}: {own.limit}")
    lockable = lockable_memory(system.getrlimit)
    text = f"{units.size(lockable.bytes)}: {lockable.limit}" if lockable else "no limit"
    yield Finding("lockable", lockable and asdict(lockable), text)


def disk() -> Iterator[Finding]:
    """What the folder of the cache, where slabs of weights are spilled, can still take."""
    from tightrun.runtime.disk_space import disk_of

    folder = cache_folder(os.environ)
    found = disk_of(folder)
    text = f"{folder}: {units.size(found.free.bytes)} {found.free.limit}"
    yield Finding("cache", {"folder": str(folder), **asdict(found)}, text)


def kernels() -> Iterator[Finding]:
    """Whether the C++ attention can be built and used here; builds it if it is not there yet."""
    from tightrun.runtime.kernels.cpu import CpuKernels

    folder = cache_folder(os.environ) / "kernels"
    reasons: list[str] = []
    found = CpuKernels.load(folder, reasons.append, os.environ.get("CXX"))
    text = f"C++ attention, built and checked in {folder}" if found else "; ".join(reasons)
    yield Finding("kernels", found is not None, text)


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _driver_gpus() -> tuple[list[Gpu], str | None]:
    """The GPUs that the NVIDIA driver lets CUDA see, none without a driver; what ails it."""
    import pynvml

    from tightrun.runtime.nvidia import visible_gpus

    try:
        return visible_gpus(os.environ, pynvml), None
    except ValueError as error:
        return [], str(error)
