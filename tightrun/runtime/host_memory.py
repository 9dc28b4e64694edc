"""How much host memory this process may hold, and which limit says so."""

from __future__ import annotations

from tightrun.policies.hardware import Budget
from tightrun.runtime.cgroups import memory_limits
from tightrun.runtime.meminfo import available_bytes, held_bytes
from tightrun.runtime.rlimits import rlimit_memory
from tightrun.runtime.slurm_limits import slurm_memory
from tightrun.runtime.system import System


def host_limits(system: System) -> list[Budget]:
    """Every limit found, in bytes that this process may hold in all: what it holds already is
    counted as available to it. Raises ValueError where nothing says how much there is.
    """
    held = held_bytes(system.root)
    found = [
        # No more than the limit itself: some resident pages are charged to other groups.
        Budget(min(limit.bytes, limit.free + held.resident), limit.words)
        for limit in memory_limits(system.root)
    ]
    found += slurm_memory(system.environment)
    found += rlimit_memory(held, system.getrlimit)
    available = available_bytes(system.root)
    if available is not None:
        found.append(Budget(available + held.resident, "available memory"))
    if not found:
        raise ValueError(
            f"{system.root / 'proc/meminfo'} does not say how much memory is available; "
            "give hardware: {device: ..., cpu_memory: ...} in the job file"
        )
    return found


def host_budget(asked: float | int, system: System) -> Budget:
    """Bytes of host memory that may be used: `asked` is a share (float) or bytes (int)."""
    return hold_to(asked, min(host_limits(system), key=lambda x: x.bytes), "limits.cpu_memory")


def hold_to(asked: float | int, found: Budget, name: str) -> Budget:
    """What was `asked` under `name`, a share or bytes, within what was found."""
    if isinstance(asked, float):
        return Budget(int(found.bytes * asked), f"{name} ({asked:.0%} of {found.limit})")
    return Budget(asked, name) if asked <= found.bytes else found
