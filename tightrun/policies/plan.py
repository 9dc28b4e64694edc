"""What is decided before a run: how many sequences together, how many tokens a pass, which bytes.

Everything is resident on the device here; what does not fit is refused with the sum.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tightrun.policies.hardware import Budget
from tightrun.policies.shape import ModelShape

# Flash attention wants pages of 256 tokens; the CPU kernels are as fast at 64 and waste less.
BLOCK_TOKENS = {"cpu": 64, "cuda": 256}
PREFILL_TOKENS = {"cpu": 2048, "cuda": 8192}
# A plan that cannot hold one sequence of this many tokens is refused, not shortened.
LEAST_CONTEXT = 1024
MOST_SEQUENCES = {"cpu": 512, "cuda": 2048}


class DoesNotFitError(ValueError):
    """The model and one sequence of the asked context do not fit the memory that may be used."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is known of the job before it starts; None where nothing is known. Tokens, rows."""

    rows: int | None = None
    samples: int = 1
    longest_sequence: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of a run. `arenas` are planned bytes of device memory by name."""

    batch_size: int
    batches: int
    prefill_tokens: int
    block_tokens: int
    kv_blocks: int
    context: int
    arenas: dict[str, int] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    @property
    def kv_tokens(self) -> int:
        return self.kv_blocks * self.block_tokens


def workspace_bytes(shape: ModelShape, tokens: int) -> int:
    """Activations alive at once while `tokens` pass one layer, norms computed in float32."""
    per_token = shape.element_bytes * (6 * shape.hidden + 4 * shape.widest) + 12 * shape.hidden
    return per_token * tokens


def logits_bytes(shape: ModelShape, rows: int) -> int:
    """The logits of `rows` rows and one float32 copy of them."""
    return rows * shape.vocab * (shape.element_bytes + 4)


def plan_resident(
    shape: ModelShape,
    budget: Budget,
    device: str,
    workload: Workload,
    *,
    batch_size: int | None = None,
    batches: int | None = None,
    context: int | None = None,
    beside: int = 0,
) -> Plan:
    """Choose the sizes of a run with weights and KV cache resident on the device.

    `beside` are bytes already taken by what is not in a ledger (imports, the interpreter).
    The longest sequence is a guess from bytes: where the KV cache cannot hold it, the context is
    cut to what it holds. Raises DoesNotFitError with the sum if that is less than LEAST_CONTEXT.
    """
    kind = device.split(":")[0]
    window = min(context or shape.context, shape.context)
    longest = min(workload.longest_sequence or window, window)
    sequences = batch_size or MOST_SEQUENCES[kind]
    if workload.rows is not None:
        sequences = min(sequences, max(1, workload.rows * workload.samples))
    block_tokens = BLOCK_TOKENS[kind]
    block_bytes = block_tokens * shape.kv_bytes_per_token
    blocks_each = -(-longest // block_tokens)
    prefill = PREFILL_TOKENS[kind]
    while True:
        # Every place computes one row in a decode pass, so a pass is at least that wide.
        wide = max(prefill, sequences)
        fixed = {
            "beside": beside,
            "weights": shape.weight_bytes,
            "workspace": workspace_bytes(shape, wide),
            "logits": logits_bytes(shape, sequences),
        }
        left = budget.bytes - sum(fixed.values())
        blocks = min(left // block_bytes, sequences * blocks_each) if left > 0 else 0
        if blocks >= blocks_each or (prefill == 1 and sequences == 1):
            break
        if prefill > 64:
            prefill //= 2
        elif sequences > 1:
            sequences = max(1, sequences // 2)
        else:
            prefill = max(1, prefill // 2)
    least = min(longest, LEAST_CONTEXT)
    if blocks < -(-least // block_tokens):
        raise DoesNotFitError(_refusal(shape, budget, fixed, least))
    reasons = [f"{budget.limit} allows {budget.bytes / 2**30:.1f} GiB"]
    if blocks < blocks_each:
        window = blocks * block_tokens
        reasons.append(f"the KV cache holds {window:,} tokens: longer rows are refused")
    return Plan(
        batch_size=sequences,
        batches=batches or 1,
        prefill_tokens=prefill,
        block_tokens=block_tokens,
        kv_blocks=blocks,
        context=window,
        arenas=fixed | {"kv": blocks * block_bytes},
        reasons=tuple(reasons),
    )


def _refusal(shape: ModelShape, budget: Budget, fixed: dict[str, int], longest: int) -> str:
    parts = " + ".join(f"{name} {size / 2**20:,.0f} MiB" for name, size in fixed.items() if size)
    kv = shape.kv_bytes_per_token * longest / 2**20
    need = sum(fixed.values()) + shape.kv_bytes_per_token * longest
    return (
        f"does not fit: {parts} + kv {kv:,.0f} MiB for one sequence of {longest:,} tokens "
        f"= {need / 2**20:,.0f} MiB, but {budget.limit} allows {budget.bytes / 2**20:,.0f} MiB. "
        "Raise limits.gpu_memory or limits.cpu_memory, lower limits.context, or use a smaller "
        "model."
    )
