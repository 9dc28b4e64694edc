"""The machine a benchmark ran on and the versions of what it ran: they stand beside each figure."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

# The best first, as /proc/cpuinfo names them.
VECTORS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "asimd")


def hardware(device: str | None = None) -> dict[str, Any]:
    """Processor, its widest products, cores this process may use, memory in bytes, and what oneDNN
    is held to where it is; `device` names an accelerator."""
    found: dict[str, Any] = {
        "cpu": _processor(Path("/proc/cpuinfo")),
        "vectors": _vectors(Path("/proc/cpuinfo")),
        "cores": _cores(),
        "memory_bytes": psutil.virtual_memory().total,
    }
    if limit := os.environ.get("ONEDNN_MAX_CPU_ISA"):
        found["onednn_max_cpu_isa"] = limit
    return {**found, "device": device} if device else found


def hardware_name(found: dict[str, Any]) -> str:
    """The hardware as a part of a file name, such as `amd-epyc-avx2-2-cores`."""
    words = found.get("device") or f"{found['cpu']} {found['vectors']} {found['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Versions of Python and of these packages here; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _vectors(cpuinfo: Path) -> str:
    """What decides how fast products are: machines of one name may differ in it."""
    try:
        words = set(cpuinfo.read_text().split())
    except OSError:
        return ""
    return next((name for name in VECTORS if name in words), "")


def _processor(cpuinfo: Path) -> str:
    """The processor's own name; the architecture where the system does not tell it."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
