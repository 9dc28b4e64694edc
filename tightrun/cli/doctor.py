"""`tightrun doctor`: what a run would find on this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from tightrun.cli import units
from tightrun.cli.load_engine import cache_folder

PACKAGES = ("tightrun", "torch", "transformers", "pyarrow", "datasets", "numpy")
UNPROVEN = (
    "tightrun has not yet been proven on a GPU: it is written for CUDA as well, links and memory "
    "included, but only the CPU and the emulated device have been tested and measured"
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
    findings = [*versions(), *devices(), *memory(), *kernels()]
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

    cores, name = len(os.sched_getaffinity(0)), _processor_name()
    features = torch.backends.cpu.get_cpu_capability()
    yield Finding(
        "cpu",
        {"name": name, "processors": cores, "capability": features},
        f"{name}, {cores} processors may be used, {features}",
    )
    yield Finding("emulated", True, EMULATED)
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    for number, gpu in enumerate(gpus):
        value = {"name": gpu.name, "bytes": gpu.total_memory}
        yield Finding(f"cuda:{number}", value, f"{gpu.name}, {units.size(gpu.total_memory)}")
    if gpus:
        return
    seen = _driver_gpus()
    text = "none; the job runs on the CPU"
    if seen:
        text = (
            f"{', '.join(seen)} seen by the driver, but not by torch {torch.__version__}: "
            "install a CUDA build of torch"
        )
    yield Finding("gpu", seen, text)


def memory() -> Iterator[Finding]:
    """How much this process may use at the default limits, and which limit says so."""
    import torch

    from tightrun.io.job_sections import LimitsSpec
    from tightrun.runtime.limits import device_budget, host_budget

    limits = LimitsSpec()
    budgets = {"memory": host_budget(limits.cpu_memory.value)}
    for number in range(torch.cuda.device_count()):
        device = torch.device("cuda", number)
        budgets[f"memory cuda:{number}"] = device_budget(device, limits.gpu_memory.value)
    for name, budget in budgets.items():
        yield Finding(name, asdict(budget), f"{units.size(budget.bytes)}: {budget.limit}")


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


def _driver_gpus() -> list[str]:
    """Names of the GPUs that the NVIDIA driver knows; none where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    finally:
        pynvml.nvmlShutdown()
