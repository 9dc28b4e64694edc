"""The device torch computes on, and the memory it may take there."""

from __future__ import annotations

import torch

from tightrun.policies.hardware import Budget
from tightrun.runtime.limits import PIECES


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


def hold_to_budget(device: torch.device, budget: Budget, planned_share: float = 1.0) -> None:
    """Let torch's allocator refuse what exceeds the budget instead of taking it; `planned_share`
    of what it may take is planned with."""
    _free, total = torch.cuda.mem_get_info(device)
    allowed = budget.bytes / planned_share * PIECES / (PIECES - 1)
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), device)


def use_processors(count: int) -> None:
    """Have torch compute with no more threads than `count`; fewer stay as they are."""
    if count < torch.get_num_threads():
        torch.set_num_threads(count)
