"""What tells this machine from another: whatever was measured holds until one of it changes."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

# Versions of what computes, and of what says how to.
MEASURED_WITH = ("tightrun", "torch", "transformers", "huggingface_hub")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
CPUINFO = Path("/proc/cpuinfo")


def fingerprint(environment: Mapping[str, str], cpuinfo: Path = CPUINFO) -> list[str]:
    """Lines that stay the same from boot to boot, and change with processor, GPUs, driver, kernel,
    the processors that may be used, and the versions of what computes."""
    gpus, driver = driver_gpus()
    return [
        *processor(cpuinfo),
        f"processors {sorted(os.sched_getaffinity(0))}",
        f"kernel {platform.release()}",
        f"gpus {gpus} driver {driver}",
        *(f"{name} {environment.get(name)}" for name in THREADS),
        *(f"{name} {_version(name)}" for name in MEASURED_WITH),
    ]


def processor(cpuinfo: Path = CPUINFO) -> tuple[str, str]:
    """Name of the processor and its features, as the kernel lists them."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    fields = [(k.strip(), v.strip()) for k, _, v in (line.partition(":") for line in lines)]
    name = next((v for k, v in fields if k == "model name"), platform.machine())
    return name, next((v for k, v in fields if k in ("flags", "Features")), "")


def driver_gpus() -> tuple[list[str], str]:
    """Names of the GPUs that the NVIDIA driver knows, and its version; none without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return [], ""
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        names = [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
        return names, str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
