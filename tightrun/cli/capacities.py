"""The limits of a job applied to what its machine has."""

from __future__ import annotations

import shutil
from pathlib import Path

from tightrun.io.quantities import Amount


def memory_within(limit: Amount, capacity: int | None) -> float | int:
    """Bytes (int) where the capacity is given, else the limit as it stands: a share (float) of
    what will be found, or bytes."""
    return limit.value if capacity is None else min(limit.of(capacity), capacity)


def disk_within(limit: Amount | None, capacity: int | None, folder: Path) -> int | None:
    """Bytes of disk that may be taken, None for as many as there are.

    A share is one of the capacity if that is given, else of what is free where `folder` is or
    will be. Raises OSError if that cannot be asked.
    """
    if limit is None:
        return capacity
    if capacity is not None:
        return min(limit.of(capacity), capacity)
    if limit.bytes is not None:
        return limit.bytes
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return limit.of(shutil.disk_usage(there).free)
