"""Says why not even one sequence can run, with the sum."""

from __future__ import annotations

from tightrun.policies.hardware import Budget
from tightrun.policies.offload_memory import SLOTS, Division
from tightrun.policies.offload_search import Search


def refusal(search: Search, device: Budget, host: Budget) -> str:
    """The sentence for the memory that does not hold one sequence, a token at a time."""
    sums = search.sums
    blocks = search.wanted.least
    least = Division(0, 1, 1, 1, 1)
    from_disk = sums.layers if search.wanted.disk else 0
    if sums.one_memory:
        least = least._replace(kv_blocks=blocks, disk=from_disk)
        if not from_disk:
            least = least._replace(resident=sums.layers)
    else:
        least = least._replace(workspace_blocks=blocks, host_blocks=blocks, disk=from_disk)
    whole = least._replace(resident=sums.layers, disk=0)
    if sum(sums.device(whole).values()) < sum(sums.device(least).values()):
        least = whole
    on_device, on_host = sums.device(least), sums.host(least)
    tokens = blocks * sums.block_tokens
    if sum(on_device.values()) > device.bytes:
        slots = ""
        if least.resident < sums.layers and SLOTS * sums.weights.largest > device.bytes:
            slots = f" A layer must fit {SLOTS} times: one is computed with, the next arrives."
        memory = "limits.cpu_memory" if sums.one_memory else "limits.gpu_memory"
        disk = sums.one_memory and not from_disk
        return f"does not fit: {_sum(on_device, device, tokens)}.{slots} {_remedy(memory, disk)}"
    return (
        f"does not fit: {_sum(on_host, host, tokens)}. "
        f"{_remedy('limits.cpu_memory', not from_disk)}"
    )


def _remedy(memory: str, disk: bool) -> str:
    """What to change; `disk` says that reading from the disk is not allowed, but would help."""
    first = "Allow the disk (limits.disk), raise" if disk else "Raise"
    return f"{first} {memory}, lower limits.context, or use a smaller model."


def _sum(arenas: dict[str, int], budget: Budget, tokens: int) -> str:
    """The parts, what they come to, and what there is; small figures in KiB."""
    total = sum(arenas.values())
    unit, name = (2**20, "MiB") if total >= 64 * 2**20 else (2**10, "KiB")
    parts = " + ".join(f"{x} {size / unit:,.0f} {name}" for x, size in arenas.items() if size)
    return (
        f"{parts} = {total / unit:,.0f} {name} for one sequence of {tokens:,} tokens, but "
        f"{budget.limit} allows {budget.bytes / unit:,.0f} {name}"
    )
