"""What Slurm has promised this job on this node, from the variables it sets (sbatch(1), srun(1)).

Slurm kills a job that uses more, on many clusters without any control group that shows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tightrun.policies.hardware import Budget

_UNITS = {"K": 2**10, "": 2**20, "M": 2**20, "G": 2**30, "T": 2**40}
_GPU_LISTS = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")


def slurm_memory(environment: Mapping[str, str]) -> list[Budget]:
    """The memory of the whole job on this node; empty outside of a job and without a limit.

    Raises ValueError for a variable that is not as Slurm writes it.
    """
    cpus, cpus_from = _cpus(environment)
    gpus, gpus_from = _gpus(environment)
    found = [
        _times(environment, "SLURM_MEM_PER_NODE", 1, ""),
        _times(environment, "SLURM_MEM_PER_CPU", cpus, f" times {cpus} CPUs ({cpus_from})"),
        _times(environment, "SLURM_MEM_PER_GPU", gpus, f" times {gpus} GPUs ({gpus_from})"),
    ]
    return [budget for budget in found if budget is not None]


def _times(environment: Mapping[str, str], name: str, times: int, words: str) -> Budget | None:
    text = environment.get(name)
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"{name} is {text!r}, not a size such as 4096 or 64G; correct or unset it")
    size = int(match[1]) * _UNITS[match[2].upper()]
    # --mem=0 asks for all the memory of the node.
    return Budget(size * times, name + words) if size else None


def _cpus(environment: Mapping[str, str]) -> tuple[int, str]:
    """CPUs of the job on this node, and where that is said."""
    for name in ("SLURM_CPUS_ON_NODE", "SLURM_JOB_CPUS_PER_NODE"):
        # Of several nodes, "16(x2),8", the first group is as good as any: the list is sorted by
        # node, and no variable says which node this is.
        match = re.match(r"\d+", environment.get(name, ""))
        if match:
            return int(match[0]), name
    return 1, "SLURM_CPUS_ON_NODE is not set"


def _gpus(environment: Mapping[str, str]) -> tuple[int, str]:
    """GPUs of the job on this node, and where that is said."""
    if environment.get("SLURM_GPUS_ON_NODE", "").isdecimal():
        return int(environment["SLURM_GPUS_ON_NODE"]), "SLURM_GPUS_ON_NODE"
    for name in _GPU_LISTS:
        if environment.get(name):
            return _numbers_in(environment[name]), name
    match = re.fullmatch(r"(?:.*:)?(\d+)", environment.get("SLURM_GPUS_PER_NODE", ""))
    if match:
        return int(match[1]), "SLURM_GPUS_PER_NODE"
    return 1, "SLURM_GPUS_ON_NODE is not set"


def _numbers_in(text: str) -> int:
    """How many numbers a list such as "0,2-3" stands for."""
    count = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        is_range = first.isdecimal() and last.isdecimal()
        count += int(last) - int(first) + 1 if is_range else 1
    return count
