"""How much memory this process may use: the least of the machine's and the cgroups' limits."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import torch

from tightrun.policies.hardware import Budget, Hardware

CGROUP_ROOT = Path("/sys/fs/cgroup")


def cgroup_free(root: Path = CGROUP_ROOT, own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes left under the tightest cgroup v2 ancestor, None where there is no limit."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    path = next((x[3:] for x in lines if x.startswith("0::")), None)
    if path is None:
        return None
    found: list[int] = []
    folder = root / path.lstrip("/")
    while folder == root or root in folder.parents:
        left = _left_in(folder)
        if left is not None:
            found.append(left)
        folder = folder.parent
    return min(found, default=None)


def _left_in(folder: Path) -> int | None:
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text()) - _reclaimable(folder)
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)


def _reclaimable(folder: Path) -> int:
    """Bytes of files read long ago, which the kernel gives up before it refuses memory."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(x.split()[1]) for x in lines if x.startswith("inactive_file "))


def host_budget(asked: float | int) -> Budget:
    """Bytes of host memory that may be used: `asked` is a share (float) or bytes (int).

    What this process holds already counts as available to it.
    """
    own = psutil.Process().memory_info().rss
    available, limit = psutil.virtual_memory().available + own, "available memory"
    in_cgroup = cgroup_free()
    if in_cgroup is not None and in_cgroup + own < available:
        available, limit = in_cgroup + own, "the cgroup's memory.max"
    return _apply(asked, available, limit, "limits.cpu_memory")


def device_budget(device: torch.device, asked: float | int) -> Budget:
    """Bytes of GPU memory that may be used: what is free, held to what was asked."""
    free, _total = torch.cuda.mem_get_info(device)
    return _apply(asked, free, "free GPU memory", "limits.gpu_memory")


def hold_to_budget(device: torch.device, budget: Budget) -> None:
    """Let torch's allocator refuse what exceeds the budget instead of taking it."""
    _free, total = torch.cuda.mem_get_info(device)
    torch.cuda.set_per_process_memory_fraction(min(1.0, budget.bytes / total), device)


def _apply(asked: float | int, available: int, limit: str, name: str) -> Budget:
    if isinstance(asked, float):
        return Budget(int(available * asked), f"{name} ({asked:.0%} of {limit})")
    if asked <= available:
        return Budget(asked, name)
    return Budget(available, limit)


def detect_hardware(device: torch.device, gpu: float | int, cpu: float | int) -> Hardware:
    """The memories and processors of this process as they are now."""
    host = host_budget(cpu)
    own = device_budget(device, gpu) if device.type == "cuda" else host
    return Hardware(str(device), own, host, len(os.sched_getaffinity(0)))


def choose_device(asked: str) -> torch.device:
    """`auto` takes a GPU if there is one. Raises ValueError for one that is not there."""
    if asked == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device("cuda:0" if asked == "cuda" else asked)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"hardware: {asked} was asked for, but torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices; use hardware: cpu or auto"
        )
    return device
