"""What tells this machine from another: whatever was measured holds until one of it changes."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path, PurePosixPath

import psutil

from tightrun.runtime.mounts import mount_of, read_mounts
from tightrun.runtime.nvidia import visible_gpus
from tightrun.runtime.processors import usable_processors
from tightrun.runtime.system import System

# Versions of what computes, and of what says how to.
MEASURED_WITH = ("tightrun", "torch", "transformers", "huggingface_hub")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
CPUINFO = Path("/proc/cpuinfo")
# Of which one is there where NVIDIA's driver is: on Linux, in WSL, on Tegra.
DRIVER_NODES = ("dev/nvidiactl", "dev/dxg", "dev/nvmap")


def fingerprint(system: System, folder: Path, cpuinfo: Path = CPUINFO) -> list[str]:
    """Lines that stay the same from boot to boot, and change with processor, GPUs, driver, kernel,
    memory, the file system that `folder` lies on, the processors that may be used, and the
    versions of what computes."""
    mount = mount_of(PurePosixPath(folder), read_mounts(system.root))
    return [
        *processor(cpuinfo),
        f"processors {usable_processors(system.affinity(), system.root).count}",
        f"kernel {platform.release()}",
        f"gpus {gpus(system)}",
        *(f"{name} {system.environment.get(name)}" for name in THREADS),
        f"memory {psutil.virtual_memory().total // 2**30} GiB",
        f"disk {mount and (mount.kind, str(mount.point))}",
        *versions(),
    ]


def versions() -> list[str]:
    """The versions of what reads a model and computes it."""
    return [f"{name} {_version(name)}" for name in MEASURED_WITH]


def processor(cpuinfo: Path = CPUINFO) -> tuple[str, str]:
    """Name of the processor and its features, as the kernel lists them."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    fields = [(k.strip(), v.strip()) for k, _, v in (line.partition(":") for line in lines)]
    name = next((v for k, v in fields if k == "model name"), platform.machine())
    return name, next((v for k, v in fields if k in ("flags", "Features")), "")


def gpus(system: System) -> str:
    """Names of the GPUs that CUDA will see, and the driver's version; empty without a driver."""
    if not any((system.root / node).exists() for node in DRIVER_NODES):
        return ""  # what speaks to the driver takes a tenth of a second to import
    nvml = system.nvml()
    try:
        names = [gpu.name for gpu in visible_gpus(system.environment, nvml)]
        nvml.nvmlInit()
    except (ValueError, nvml.NVMLError):
        return ""
    try:
        return f"{names} {nvml.nvmlSystemGetDriverVersion()}"
    finally:
        nvml.nvmlShutdown()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
