"""A whole job without a model: its passes by the cost model, one after the other.

Sequences start and grow as the scheduler has them; a pass takes what the schedule makes of its
batches. Passes that only decode are reckoned together until a sequence ends. A long job is
simulated until its places have turned over several times, and the rest follows from those.
"""

from __future__ import annotations

from operator import add, sub

from tightrun.policies.cost import RESOURCES
from tightrun.policies.forms import Recipe
from tightrun.policies.hardware import Rates
from tightrun.policies.lengths import Lengths
from tightrun.policies.pass_cost import PassCost, Policy
from tightrun.policies.placement import Placement
from tightrun.policies.plan import Predicted
from tightrun.policies.schedule import Streaming
from tightrun.policies.shape import ModelShape
from tightrun.policies.simulated_job import SimulatedJob

__all__ = ["Policy", "simulate"]

# Rounds of sequences that are reckoned with where nobody knows how many rows there are.
WAVES = 4
# A long job is simulated until so many times as many sequences have started as run together, and
# at least so many, beyond those that it begins with.
STEADY_ROUNDS, STEADY_SEQUENCES = 2, 256


def simulate(
    shape: ModelShape,
    rates: Rates,
    recipe: Recipe,
    placement: Placement,
    lengths: Lengths,
    policy: Policy,
) -> Predicted:
    """What a job of sequences of these lengths comes to."""
    cost = PassCost(shape, rates, recipe, policy)
    streaming = cost.streaming(
        placement.streamed,
        placement.weight_bytes,
        placement.disk_bytes,
        placement.slots,
        from_disk=placement.one_memory,
    )
    wanted = lengths.sequences
    job = SimulatedJob(placement, lengths, 10**12 if wanted is None else wanted)
    totals = [0.0] * _FIELDS
    job.start()
    first = job.started
    begin: tuple[int, list[float]] | None = None
    more = max(STEADY_ROUNDS, -(-STEADY_SEQUENCES // max(1, first))) * first
    left = 0
    ratio = 0.0
    while job.running:
        ratio = _passes(job, cost, streaming, totals, ratio)
        if begin is None and job.finished >= first:
            begin = job.started, list(totals)
        if begin is not None and not left and begin[0] + more <= job.started < job.supply:
            # From here on it goes as it went since `begin`, until the last sequences start.
            steady = job.started - begin[0]
            left = max(0, (WAVES * first if wanted is None else wanted) - job.started)
            each = [x / steady for x in map(sub, totals, begin[1])]
            totals = list(map(add, totals, [left * x for x in each]))
            job.supply = job.started
        job.start()
    return _predicted(totals, known=wanted is not None)


# Seconds, those of prefill, prompt tokens, decode rows, output tokens; then busy seconds.
_FIELDS = 5 + len(RESOURCES)


def _passes(
    job: SimulatedJob, cost: PassCost, streaming: Streaming, totals: list[float], ratio: float
) -> float:
    """Go through the coming pass, or several alike; returns the ratio of what it recomputes."""
    count = job.alike()
    decodes = job.decodes_only
    before = job.prefill_tokens, job.decode_rows, job.output_tokens
    found = cost.of_pass(job.counts(count), streaming, job.placement.most_rows, ratio)
    after = job.prefill_tokens, job.decode_rows, job.output_tokens
    prefilled, decoded, written = map(sub, after, before)
    seconds = count * found.elapsed_s
    totals[0] += seconds
    totals[1] += seconds * prefilled / max(1, prefilled + decoded)
    totals[2] += prefilled
    totals[3] += decoded
    totals[4] += written
    for index, busy_s in enumerate(found.busy_s):
        totals[5 + index] += count * busy_s
    return found.ratio if decodes else ratio


def _predicted(totals: list[float], *, known: bool) -> Predicted:
    seconds, prefill_s, prefill, decoded, written, *busy_s = totals
    compute_s, memory_s, *links_s = busy_s
    decode_s = seconds - prefill_s
    if compute_s + memory_s >= max(links_s):
        binding = RESOURCES[0] if compute_s >= memory_s else RESOURCES[1]
    else:
        binding = RESOURCES[2 + links_s.index(max(links_s))]
    return Predicted(
        seconds=seconds if known else 0.0,
        prefill_tokens_per_s=prefill / prefill_s if prefill_s else 0.0,
        decode_tokens_per_s=decoded / decode_s if decode_s else 0.0,
        output_tokens_per_s=written / seconds if seconds else 0.0,
        binding=binding,
        busy_s=tuple(zip(RESOURCES, busy_s, strict=True)),
    )
