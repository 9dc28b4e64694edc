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
    if sums.one_memory:
        least = least._replace(kv_blocks=blocks, disk=sums.layers)
    else:
        least = least._replace(workspace_blocks=blocks, host_blocks=blocks, disk=sums.layers)
    whole = least._replace(resident=sums.layers, disk=0)
    if sum(sums.device(whole).values()) < sum(sums.device(least).values()):
        least = whole
    on_device, on_host = sums.device(least), sums.host(least)
    tokens = blocks * sums.block_tokens
    if sum(on_device.values()) > device.bytes:
        slots = ""
        if least.resident < sums.layers and SLOTS * sums.weights.largest > device.bytes:
            slots = f" A layer must fit {SLOTS} times: one is computed with, the next arrives."
        return (
            f"does not fit: {_sum(on_device, device, tokens)}.{slots} "
            "Raise limits.gpu_memory, lower limits.context, or use a smaller model."
        )
    return (
        f"does not fit: {_sum(on_host, host, tokens)}. "
        "Raise limits.cpu_memory, lower limits.context, or use a smaller model."
    )


def _sum(arenas: dict[str, int], budget: Budget, tokens: int) -> str:
    """The parts, what they come to, and what there is; small figures in KiB."""
    total = sum(arenas.values())
    unit, name = (2**20, "MiB") if total >= 64 * 2**20 else (2**10, "KiB")
    parts = " + ".join(f"{x} {size / unit:,.0f} {name}" for x, size in arenas.items() if size)
    return (
        f"{parts} = {total / unit:,.0f} {name} for one sequence of {tokens:,} tokens, but "
        f"{budget.limit} allows {budget.bytes / unit:,.0f} {name}"
    )
