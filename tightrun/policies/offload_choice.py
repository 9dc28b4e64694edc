"""Which way to divide the memories is best: all by mean passes, the best few by simulation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tightrun.policies.case import PolicyAsked
from tightrun.policies.forms import Form, Recipe
from tightrun.policies.hardware import Budget, Rates
from tightrun.policies.lengths import Lengths, lengths_of
from tightrun.policies.offload_memory import Division, MemorySums, WeightSizes
from tightrun.policies.offload_search import NARROW, Search, Wanted
from tightrun.policies.offload_speed import SpeedModel
from tightrun.policies.pass_cost import Policy
from tightrun.policies.placement import placement_of_division
from tightrun.policies.plan import (
    BLOCK_TOKENS,
    LEAST_CONTEXT,
    MOST_SEQUENCES,
    PREFILL_TOKENS,
    Workload,
)
from tightrun.policies.shape import ModelShape
from tightrun.policies.simulate import simulate

# Small blocks waste little of a workspace, and one copy takes many of them.
OFFLOADED_BLOCK_TOKENS = 16
# Speed that is given up for what is simpler (all resident, else all KV, else no disk), and for a
# longest sequence that nobody is sure to be there.
RESIDENT_WORTH, KV_RESIDENT_WORTH, NO_DISK_WORTH, LONGEST_WORTH = 0.95, 0.97, 0.95, 0.9
# Divisions that are simulated: the best of each number of places, so many of these.
SIMULATED = 6
# What cannot come to so much of the best speed so far is not looked at.
HOPELESS = 0.7


@dataclass(frozen=True, slots=True)
class Job:
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
    recipe: Recipe
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
            gathers=self.kind == "cuda",
        )
        most = -(-self.longest // block_tokens)
        wanted = Wanted(
            sequences=self.sequences,
            # Admission reckons with an output that may be longer than the context leaves room for.
            typical=min(most, self.lengths.blocks(block_tokens)),
            least=-(-least // block_tokens),
            most=most,
            prefill_tokens=PREFILL_TOKENS[self.kind],
            batch_size=self.policy.batch_size,
            batches=self.policy.batches,
            form=form,
            forced=self.policy.recompute,
            disk=self.policy.disk,
        )
        return Search(sums, self.device.bytes, self.host.bytes, wanted)


@dataclass(frozen=True, slots=True)
class Choice:
    """A division, its sums, its speed, and its speed as a choice counts it.

    `narrow` says that it has no room for the rows of a forced replay.
    """

    division: Division
    sums: MemorySums
    tokens_per_s: float
    worth: float
    narrow: bool


def choose(job: Job, simulated: int = SIMULATED) -> Choice | None:
    """The best division for the longest sequence, or one for shorter ones that is much faster.

    Of the best by mean passes, `simulated` are simulated; with 1 none is. With 0 the first way that
    fits is taken, which answers quickly whether there is one.
    """
    longest = _best(job, job.longest, simulated)
    sure = job.workload.longest_sequence is not None
    if job.longest <= LEAST_CONTEXT or (sure and longest is not None):
        return longest
    shorter = _best(job, LEAST_CONTEXT, simulated)
    if longest is None or shorter is None:
        return longest or shorter
    return longest if longest.worth >= LONGEST_WORTH * shorter.worth else shorter


def _best(job: Job, least: int, simulated: int) -> Choice | None:
    """The division of the highest worth in which a sequence of `least` tokens finds room."""
    if not simulated:
        return next(_choices(job, least), None)
    choices = sorted(_choices(job, least), key=lambda choice: -choice.worth)
    if not choices:
        return None
    if choices[0].narrow:
        wide = [x for x in choices if x.division.workspace_blocks and not x.narrow]
        choices = wide or choices
    if simulated < 2:
        return choices[0]
    found = [_simulated(job, choice) for choice in _several(choices, simulated)]
    return max(found, key=lambda choice: choice.worth)


def _several(choices: list[Choice], most: int) -> list[Choice]:
    """The best of each number of places, as many of them as are asked for."""
    found: dict[int, Choice] = {}
    for choice in choices:
        places = choice.division.batches * choice.division.batch_size
        if places not in found:
            found[places] = choice
        if len(found) == most:
            break
    return list(found.values())


def _simulated(job: Job, choice: Choice) -> Choice:
    """The choice with its speed as a simulation of the whole job gives it."""
    form = job.form if choice.division.workspace_blocks else "none"
    tokens_per_s = simulate(
        job.shape,
        job.rates,
        job.recipe,
        placement_of_division(choice.division, choice.sums),
        job.lengths,
        Policy(form=form),
    ).output_tokens_per_s
    worth = choice.worth * tokens_per_s / choice.tokens_per_s
    return replace(choice, tokens_per_s=tokens_per_s, worth=worth)


def possible(job: Job) -> Iterator[Choice]:
    """Every division that a search for the longest sequence looks at, however slow."""
    return _choices(job, job.longest, hopeless=0.0)


def _choices(job: Job, least: int, hopeless: float = HOPELESS) -> Iterator[Choice]:
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
    best = 0.0
    for search, divisions, worth in ways:
        form = search.wanted.form
        speed = SpeedModel(search.sums, job.rates, job.lengths, job.recipe, form)
        for width in search.wanted.widths:
            found = False
            for division in divisions(width):
                found = True
                factor = worth * (NO_DISK_WORTH if division.disk else 1.0)
                most = math.inf if job.policy.recompute else speed.most_tokens_per_s(division)
                if factor * most < hopeless * best:
                    continue
                tokens_per_s = speed.output_tokens_per_s(division)
                value = factor * tokens_per_s
                best = max(best, value)
                narrow = search.cannot_replay(division)
                yield Choice(division, search.sums, tokens_per_s, value, narrow)
            if found and width <= NARROW:
                break
