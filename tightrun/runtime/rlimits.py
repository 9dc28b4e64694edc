"""The limits that a shell, a scheduler or a service manager has set on this process (ulimit)."""

from __future__ import annotations

import resource
from collections.abc import Callable

from tightrun.policies.hardware import Budget
from tightrun.runtime.meminfo import Held

# Address space of threads that start after this is asked (readers, writers, pyarrow's pools): some
# 16 of them, each with a stack of 8 MiB and a heap of glibc's that reserves 64 MiB.
LATER_THREADS_BYTES = 16 * (8 + 64) * 2**20

GetLimit = Callable[[int], tuple[int, int]]


def rlimit_memory(held: Held, get: GetLimit = resource.getrlimit) -> list[Budget]:
    """Bytes that this process may hold in memory in all; empty without a limit.

    Both limits count what is mapped, not what is resident: what remains of them can be added to
    what is resident now.
    """
    found = []
    for number, name, counted in (
        (resource.RLIMIT_AS, "RLIMIT_AS (ulimit -v)", held.virtual + LATER_THREADS_BYTES),
        (resource.RLIMIT_DATA, "RLIMIT_DATA (ulimit -d)", held.data),
    ):
        limit = soft_limit(number, get)
        if limit is not None:
            found.append(Budget(max(0, limit - counted) + held.resident, name))
    return found


def lockable_memory(get: GetLimit = resource.getrlimit) -> Budget | None:
    """Bytes that may be locked, None without a limit. Pages pinned for a GPU are locked, though
    drivers differ in whether they count them."""
    limit = soft_limit(resource.RLIMIT_MEMLOCK, get)
    return None if limit is None else Budget(limit, "RLIMIT_MEMLOCK (ulimit -l)")


def soft_limit(number: int, get: GetLimit) -> int | None:
    """The limit that is enforced now, None for none."""
    soft, _hard = get(number)
    return None if soft == resource.RLIM_INFINITY else soft
