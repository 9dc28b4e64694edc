"""The plan of a run whose weights or KV cache are larger than the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tightrun.policies.forms import Form, choose_form, recipe_of
from tightrun.policies.hardware import Budget, Rates
from tightrun.policies.lengths import Lengths, lengths_of
from tightrun.policies.offload_memory import (
    BUFFERS,
    SLOTS,
    STAGING_SLOTS,
    Division,
    MemorySums,
    WeightSizes,
    even_residents,
)
from tightrun.policies.offload_refusal import refusal
from tightrun.policies.offload_search import NARROW, Search, Wanted
from tightrun.policies.offload_speed import SpeedModel
from tightrun.policies.plan import (
    BLOCK_TOKENS,
    LEAST_CONTEXT,
    MOST_SEQUENCES,
    PREFILL_TOKENS,
    DoesNotFitError,
    Plan,
    Workload,
)
from tightrun.policies.shape import ModelShape

__all__ = ["PolicyAsked", "WeightSizes", "even_residents", "plan_offloaded"]

# Small blocks waste little of a workspace, and one copy takes many of them.
OFFLOADED_BLOCK_TOKENS = 16
# A third buffer of KV spares link and computing the waiting for each other where a batch takes a
# little longer or shorter than its neighbour: 5 % of a pass when both are equally busy.
# Slots beyond two carry the link over long stages, such as the head: memory that nothing else wants
# is given to them, up to so many.
MOST_SLOTS = 4
# Speed that is given up for what is simpler (all resident, else all KV, else no disk), and for a
# longest sequence that nobody is sure to be there.
RESIDENT_WORTH, KV_RESIDENT_WORTH, NO_DISK_WORTH, LONGEST_WORTH = 0.9, 0.95, 0.9, 0.9


@dataclass(frozen=True, slots=True)
class PolicyAsked:
    """What a person has set; None or "auto" where the plan may choose.

    `batch_size` are sequences per batch, `batches` batches per pass, `recompute` a ratio. `name`
    changes nothing of the plan: the policies share it, so that they can be compared.
    """

    batch_size: int | None = None
    batches: int | None = None
    recompute: float | None = None
    form: str = "auto"
    name: str = "adaptive"


@dataclass(frozen=True, slots=True)
class _Job:
    """The arguments of a plan, and what follows from them at once."""

    shape: ModelShape
    weights: WeightSizes
    device: Budget
    host: Budget
    rates: Rates
    kind: str
    workload: Workload
    policy: PolicyAsked
    window: int
    beside: int
    form: Form

    @property
    def longest(self) -> int:
        return min(self.workload.longest_sequence or self.window, self.window)

    @property
    def lengths(self) -> Lengths:
        return lengths_of(self.workload, self.window)

    @property
    def sequences(self) -> int:
        most = MOST_SEQUENCES[self.kind]
        if self.workload.rows is not None:
            most = min(most, max(1, self.workload.rows * self.workload.samples))
        return most

    def search(self, block_tokens: int, least: int, form: Form) -> Search:
        """The search through divisions with blocks of that many tokens."""
        sums = MemorySums(
            self.shape,
            self.weights,
            block_tokens,
            self.beside,
            one_memory=self.kind == "cpu",
            activations=form == "activations",
        )
        wanted = Wanted(
            sequences=self.sequences,
            typical=-(-self.lengths.typical // block_tokens),
            least=-(-least // block_tokens),
            most=-(-self.longest // block_tokens),
            prefill_tokens=PREFILL_TOKENS[self.kind],
            batch_size=self.policy.batch_size,
            batches=self.policy.batches,
            form=form,
            forced=self.policy.recompute,
        )
        return Search(sums, self.device.bytes, self.host.bytes, wanted)


@dataclass(frozen=True, slots=True)
class _Choice:
    """A division, its sums, its speed, and its speed as a choice counts it.

    `narrow` says that it has no room for the rows of a forced replay.
    """

    division: Division
    sums: MemorySums
    tokens_per_s: float
    worth: float
    narrow: bool


def plan_offloaded(
    shape: ModelShape,
    weights: WeightSizes,
    device: Budget,
    host: Budget,
    rates: Rates,
    kind: str,
    workload: Workload,
    policy: PolicyAsked,
    context: int | None = None,
    *,
    host_beside: int = 0,
) -> Plan:
    """Choose what is resident, what is streamed from where, and how many batches of what size.

    The fastest in the long run by the cost model, of all ways that fit; what is simpler is taken
    where it costs little. On kind "cpu" both budgets are one memory (`device` counts), streamed
    layers come from the disk, and the KV stays. `host_beside` are bytes of host memory already
    taken by what is in no ledger. Raises DoesNotFitError with the sum.
    """
    window = min(context or shape.context, shape.context)
    form, why = choose_form(recipe_of(shape), rates, policy.form, policy.recompute)
    job = _Job(
        shape, weights, device, host, rates, kind.split(":")[0], workload, policy, window,
        host_beside, form,
    )  # fmt: skip
    choice = _choose(job)
    if choice is None:
        least = min(job.longest, LEAST_CONTEXT)
        raise DoesNotFitError(refusal(job.search(_least_block(job), least, "none"), device, host))
    return _plan(job, choice, why)


def _least_block(job: _Job) -> int:
    return BLOCK_TOKENS[job.kind] if job.kind == "cpu" else OFFLOADED_BLOCK_TOKENS


def _choose(job: _Job) -> _Choice | None:
    """The best division for the longest sequence, or one for shorter ones that is much faster."""
    longest = _best(job, job.longest)
    if job.longest <= LEAST_CONTEXT:
        return longest
    shorter = _best(job, LEAST_CONTEXT)
    if longest is None or shorter is None:
        return longest or shorter
    sure = job.workload.longest_sequence is not None
    return longest if sure or longest.worth >= LONGEST_WORTH * shorter.worth else shorter


def _best(job: _Job, least: int) -> _Choice | None:
    """The division of the highest worth in which a sequence of `least` tokens finds room."""
    choices = list(_choices(job, least))
    best = max(choices, key=lambda choice: choice.worth, default=None)
    if best is None or not best.narrow:
        return best
    wide = [x for x in choices if x.division.workspace_blocks and not x.narrow]
    return max(wide, key=lambda choice: choice.worth, default=best)


def _choices(job: _Job, least: int) -> Iterator[_Choice]:
    """Divisions that fit, with their speeds; narrow passes only where wider ones do not fit."""
    blocks = BLOCK_TOKENS[job.kind]
    resident = job.search(blocks, least, "none")
    away = job.search(OFFLOADED_BLOCK_TOKENS, least, job.form)
    ways = [
        (resident, resident.all_resident, 1 / RESIDENT_WORTH),
        (resident, resident.kv_resident, 1 / KV_RESIDENT_WORTH),
    ]
    if job.kind != "cpu":
        ways.append((away, away.offloaded, 1.0))
    recipe = recipe_of(job.shape)
    for search, divisions, worth in ways:
        form = search.wanted.form
        speed = SpeedModel(search.sums, job.rates, job.lengths, recipe, form)
        for width in search.wanted.widths:
            found = False
            for division in divisions(width):
                found = True
                tokens_per_s = speed.output_tokens_per_s(division)
                value = worth * tokens_per_s * (NO_DISK_WORTH if division.disk else 1.0)
                narrow = search.cannot_replay(division)
                yield _Choice(division, search.sums, tokens_per_s, value, narrow)
            if found and width <= NARROW:
                break


def _plan(job: _Job, choice: _Choice, why: str) -> Plan:
    d, sums = choice.division, choice.sums
    streamed = sums.layers - d.resident
    arenas = sums.device(d)
    slots, buffers = 0, BUFFERS
    spare = job.device.bytes - sum(arenas.values())
    kv = d.workspace_blocks * sums.block_bytes
    states = d.activation_blocks * sums.activation_block_bytes
    if d.workspace_blocks and kv + states <= spare:
        buffers, spare = BUFFERS + 1, spare - kv - states
        arenas["kv"] += kv
        arenas["activations"] += states
    if streamed:
        slots = min(SLOTS + max(0, spare // sums.weights.largest), streamed, MOST_SLOTS)
        arenas["slots"] = slots * sums.weights.largest
    context = min(job.window, max(d.kv_blocks, d.workspace_blocks) * sums.block_tokens)
    return Plan(
        batch_size=d.batch_size,
        batches=d.batches,
        prefill_tokens=d.prefill_tokens,
        block_tokens=sums.block_tokens,
        kv_blocks=d.kv_blocks,
        context=context,
        arenas={name: size for name, size in arenas.items() if size},
        reasons=tuple(_reasons(job, choice, context, why)),
        resident_layers=even_residents(sums.layers, streamed) if streamed else None,
        disk_layers=sums.disk_layers(d),
        slots=slots,
        staging_slots=STAGING_SLOTS if d.disk and not sums.one_memory else 0,
        workspace_blocks=d.workspace_blocks,
        buffers=buffers,
        host_blocks=d.host_blocks,
        activation_blocks=d.activation_blocks,
        staging_rows=sums.staging_rows(d),
        most_rows=d.most_rows,
        recompute_form=job.form if d.workspace_blocks else "none",
        predicted_tokens_per_s=choice.tokens_per_s,
        host_arenas={name: size for name, size in sums.host(d).items() if size},
    )


def _reasons(job: _Job, choice: _Choice, context: int, why: str) -> Iterator[str]:
    """Sentences that say what goes where, and why."""
    d, sums = choice.division, choice.sums
    yield f"{job.device.limit} allows {job.device.bytes / 2**30:.1f} GiB"
    if d.resident < sums.layers:
        disk = f", {d.disk} of them from the disk" if d.disk else ""
        gib = sums.streamed_bytes(d) / 2**30
        yield (
            f"{sums.layers - d.resident} of {sums.layers} layers are streamed{disk}: "
            f"{gib:.1f} GiB a pass of {d.batches} batches of {d.batch_size} sequences"
        )
    if d.workspace_blocks:
        tokens = d.batches * d.host_blocks * sums.block_tokens
        yield f"the KV of {tokens:,} tokens is kept in host memory"
        yield why if job.policy.name == "adaptive" else f"{job.policy.name} recomputes nothing"
    elif job.policy.recompute:
        yield "all KV is resident: the recompute ratio asked for has no effect"
    if context < job.longest:
        yield f"the KV cache holds {context:,} tokens of a sequence: longer rows are refused"
