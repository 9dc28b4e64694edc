"""What is decided before a run: how many sequences together, how many tokens a pass, which bytes.

Everything is resident on the device here; what does not fit is refused with the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tightrun.policies.forms import Form
from tightrun.policies.hardware import Budget
from tightrun.policies.shape import ModelShape

# Flash attention wants pages of 256 tokens; the CPU kernels are as fast at 64 and waste less.
BLOCK_TOKENS = {"cpu": 64, "emulated": 64, "cuda": 256}
PREFILL_TOKENS = {"cpu": 2048, "emulated": 2048, "cuda": 8192}
# A plan that cannot hold one sequence of this many tokens is refused, not shortened.
LEAST_CONTEXT = 1024
MOST_SEQUENCES = {"cpu": 512, "emulated": 512, "cuda": 2048}


class DoesNotFitError(ValueError):
    """The model and one sequence of the asked context do not fit the memory that may be used."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is known of the job before it starts; None where nothing is known. Tokens, rows.

    `longest_sequence` bounds every sequence; `typical_sequence` and `typical_output` are means.
    `prompts` are tokens of prompts, ascending, each standing for an equal share of the rows.
    `most_output` is what a sequence may write at most, `outputs` are tokens that rows will write,
    like `prompts`, where more than their mean is known.
    """

    rows: int | None = None
    samples: int = 1
    longest_sequence: int | None = None
    typical_sequence: int | None = None
    typical_output: int | None = None
    prompts: tuple[int, ...] = ()
    most_output: int | None = None
    outputs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a job will come to by the cost model.

    `seconds` is 0.0 where nobody knows how many rows there are. Prefill and decode share the time
    of a pass by their rows. `busy_s` are seconds per resource of cost.RESOURCES over the whole job;
    `binding` is the busiest, where computing and device memory, which take turns, count together.
    """

    seconds: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    output_tokens_per_s: float
    binding: str
    busy_s: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of a run. `arenas` are planned bytes of device memory by name.

    A pass takes `batches` batches (K) through the layers, each of at most `batch_size` sequences
    and `prefill_tokens` rows of its own; with what is replayed it has at most `most_rows`.
    `resident_layers` None says all; the others are streamed through `slots` slots, those of
    `disk_layers` from the disk by way of `staging_slots` host buffers, the others from host memory.
    `kv_blocks` are blocks per layer on the device. A sequence without blocks there belongs to
    the workspace of its batch: `workspace_blocks` blocks of a batch in one layer, `buffers` times.
    Of these, `host_blocks` per batch and layer can lie in host memory, and
    `activation_blocks` as activations. `staging_rows` new rows of one batch and layer wait,
    twice, to be written out. `recompute_form` is `tokens`, `activations` or `none`,
    `predicted_tokens_per_s` output tokens in the long run (0.0 where nothing was predicted), and
    `host_arenas` are planned bytes of host memory by name.
    """

    batch_size: int
    batches: int
    prefill_tokens: int
    block_tokens: int
    kv_blocks: int
    context: int
    arenas: dict[str, int] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    resident_layers: tuple[int, ...] | None = None
    disk_layers: tuple[int, ...] = ()
    slots: int = 0
    staging_slots: int = 0
    workspace_blocks: int = 0
    buffers: int = 2
    host_blocks: int = 0
    activation_blocks: int = 0
    staging_rows: int = 0
    most_rows: int = 0
    recompute_form: Form = "none"
    predicted_tokens_per_s: float = 0.0
    host_arenas: dict[str, int] = field(default_factory=dict)

    @property
    def kv_tokens(self) -> int:
        return self.kv_blocks * self.block_tokens

    @property
    def longest_tokens(self) -> int:
        """The longest sequence there is room for, on the device or off it."""
        off = min(self.workspace_blocks, max(self.host_blocks, self.activation_blocks))
        return max(self.kv_blocks, off) * self.block_tokens

    @property
    def sequences(self) -> int:
        """The most sequences that run together."""
        return self.batch_size * self.batches

    @property
    def widest_batch(self) -> int:
        """The most rows of a batch: those of its own, and those it computes again."""
        return max(self.prefill_tokens, self.batch_size + 1, self.most_rows)

    @property
    def offloads(self) -> bool:
        """Whether anything crosses a link in a pass: weights or KV."""
        return self.resident_layers is not None or self.workspace_blocks > 0


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
    least = min(longest, LEAST_CONTEXT)
    least_blocks = -(-least // block_tokens)
    sizes = _choose(
        (
            _fill(
                shape,
                budget,
                beside,
                prefill,
                together,
                blocks_each,
                block_bytes,
                gathers=kind == "cuda",
            )
            for prefill, together in _narrower(PREFILL_TOKENS[kind], sequences)
        ),
        blocks_each,
        least_blocks,
        sure=workload.longest_sequence is not None,
    )
    fixed, blocks = sizes.fixed, sizes.blocks
    if blocks < least_blocks:
        raise DoesNotFitError(_refusal(shape, budget, fixed, least))
    reasons = [f"{budget.limit} allows {budget.bytes / 2**30:.1f} GiB"]
    if blocks < blocks_each:
        window = blocks * block_tokens
        reasons.append(f"the KV cache holds {window:,} tokens: longer rows are refused")
    return Plan(
        batch_size=sizes.sequences,
        batches=batches or 1,
        prefill_tokens=sizes.prefill,
        block_tokens=block_tokens,
        kv_blocks=blocks,
        context=window,
        arenas=fixed | {"kv": blocks * block_bytes},
        reasons=tuple(reasons),
        most_rows=max(sizes.prefill, sizes.sequences),
    )


@dataclass(frozen=True, slots=True)
class _Sizes:
    """One way to divide the memory: bytes of the fixed arenas, blocks of KV in what is left."""

    prefill: int
    sequences: int
    fixed: dict[str, int]
    blocks: int
    block_bytes: int

    @property
    def roomy(self) -> bool:
        """Whether narrower passes could give the KV cache an eighth more at the most."""
        passing = self.fixed["workspace"] + self.fixed["logits"]
        return 8 * passing <= self.blocks * self.block_bytes


def _fill(
    shape: ModelShape,
    budget: Budget,
    beside: int,
    prefill: int,
    sequences: int,
    blocks_each: int,
    block_bytes: int,
    *,
    gathers: bool,
) -> _Sizes:
    """The memory divided for passes of that size."""
    fixed = {
        "beside": beside,
        "weights": shape.weight_bytes,
        # Every place computes one row in a decode pass, so a pass is at least that wide.
        "workspace": workspace_bytes(shape, max(prefill, sequences)),
        "logits": logits_bytes(shape, sequences),
    }
    left = max(0, budget.bytes - sum(fixed.values()))
    # On a GPU attention may lay the keys and values of a layer side by side before it reads them.
    copied = block_bytes // len(shape.layers) if gathers else 0
    blocks = min(left // (block_bytes + copied), sequences * blocks_each)
    if copied:
        fixed["attention"] = blocks * copied
    return _Sizes(prefill, sequences, fixed, blocks, block_bytes)


def _narrower(prefill: int, sequences: int) -> Iterator[tuple[int, int]]:
    """Passes of fewer and fewer prefill tokens and sequences, down to one of each."""
    while True:
        yield prefill, sequences
        if prefill > 64:
            prefill //= 2
        elif sequences > 1:
            sequences //= 2
        elif prefill > 1:
            prefill //= 2
        else:
            return


def _choose(tried: Iterable[_Sizes], blocks_each: int, least_blocks: int, *, sure: bool) -> _Sizes:
    """The widest passes beside which one longest sequence fits.

    Where none does, or where nobody is `sure` that there is such a sequence, passes stay as wide
    as costs the KV cache little: a few long rows are not worth a job of one row at a time.
    """
    roomy: _Sizes | None = None
    for sizes in tried:
        if sizes.blocks >= blocks_each:
            return sizes
        if roomy is None and sizes.roomy and sizes.blocks >= least_blocks:
            roomy = sizes
            if not sure:
                return roomy
    return roomy or sizes


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
