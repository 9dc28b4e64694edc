"""What the machine has of memory and what this process holds of it, as /proc says (proc(5))."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of a process: `resident` in memory, `virtual` mapped, `data` private and writable
    (what RLIMIT_AS and RLIMIT_DATA count)."""

    resident: int
    virtual: int
    data: int


def available_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that the machine can give without swapping, None where it does not say so.

    In a container this is the host's figure: only its control groups know better.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith("MemAvailable:")), [])
    return int(found[1]) * 1024 if len(found) > 1 else None


def held_bytes(root: Path = Path("/"), page_bytes: int | None = None) -> Held:
    """What this process holds; nothing where it cannot be read."""
    try:
        words = (root / "proc/self/statm").read_text().split()
    except OSError:
        return Held(0, 0, 0)
    page = page_bytes or resource.getpagesize()
    virtual, resident, _shared, _text, _lib, data = (int(word) * page for word in words[:6])
    return Held(resident, virtual, data)
