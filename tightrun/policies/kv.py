"""The KV distributor: before every pass, which part of each batch's context is computed again.

The rule is TightLLM's: of all integers, the one for which compute and link in end together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tightrun.policies.corrections import Correction, Corrections
from tightrun.policies.cost import PassBound, seconds_on
from tightrun.policies.forms import Form, recipe_of
from tightrun.policies.hardware import Rates
from tightrun.policies.loads import BatchLoad, PassLoad, PassMeasured
from tightrun.policies.pass_times import PassTimes
from tightrun.policies.shape import ModelShape
from tightrun.policies.splits import Split, Splits

__all__ = ["BatchLoad", "Decision", "Distributor", "Form", "PassLoad", "PassMeasured"]

# A change must gain this share of a pass: what is dropped has to be written to be had again.
LEAST_CHANGE = 0.01
# Passes in a row that must call for less before any is written: a prefill among decode passes, or
# a noisy one, does not.
PATIENCE = 3
# Passes in a row with prefill after which prefill is no beginning any more but the way of the job.
PREFILL_PASSES = 8


@dataclass(frozen=True, slots=True)
class Decision:
    """The split of a pass. `recomputed` are tokens per batch: whole KV blocks, or all there are.

    Where a batch's figure is below what it has in the recompute form now, the pass recomputes
    what it has and writes the difference out as KV, so that the next pass has that much less.
    Stored KV never becomes activations again: in that form no figure is above what there is, and
    new tokens alone bring a batch to what is `wanted` of it. `ratio` is the share of the pass's
    new tokens to be given to the recompute form. `predicted` are seconds per resource as the
    passes so far have corrected them; `elapsed_s` the pass, with what is known not to overlap.
    """

    ratio: float
    form: Form
    recomputed: tuple[int, ...]
    wanted: tuple[int, ...]
    predicted: PassBound
    elapsed_s: float


class Distributor:
    """Decides before each pass, and learns from each how fast the machine really is.

    `activation_bytes` and `projection_flops_per_token` are of one token over all layers.
    `most_rows` is the width of a batch's workspace, which replayed tokens share (0: no end).
    `compute_factor` is how much longer a layer takes than its products, as known before the run;
    rates that say what the work itself takes need none.
    """

    def __init__(
        self,
        shape: ModelShape,
        rates: Rates,
        form: Form,
        block_tokens: int,
        *,
        forced: float | None = None,
        activation_bytes: int = 0,
        projection_flops_per_token: float = 0.0,
        most_rows: int = 0,
        compute_factor: float = 1.0,
    ) -> None:
        assert form != "activations" or activation_bytes > 0
        assert forced is None or 0 <= forced <= 1
        recipe = replace(
            recipe_of(shape, projects=False),
            activation_bytes=activation_bytes,
            projection_flops=projection_flops_per_token,
        )
        self.form: Form = "none" if forced == 0 else form
        self.forced = forced
        self.times = PassTimes(shape, rates, self.form, recipe)
        factor = compute_factor if rates.work is None else 1.0
        self.corrections = Corrections(compute=Correction(factor), prefill=Correction(factor))
        self._compute_factor = compute_factor
        self._planned_rows = most_rows
        self._splits = Splits(block_tokens, most_rows if form == "tokens" else 0)
        self._ratio = 0.0
        self._calls_for_less = 0
        self._prefill_passes = 0
        self._last: tuple[PassLoad, Split] | None = None

    def hold(self, rows: int) -> None:
        """Batches have at most so many rows from now on, those computed again included."""
        if self.form == "tokens":
            self._splits.most_rows = min(rows, self._planned_rows) if self._planned_rows else rows

    def decide(self, load: PassLoad) -> Decision:
        """The best split of the coming pass, or the present ratio where little is to be gained."""
        self._prefill_passes = self._prefill_passes + 1 if _prefills(load) else 0
        beginning = 0 < self._prefill_passes <= PREFILL_PASSES
        wanted = self._wanted(_as_decoded(load) if beginning else load)
        if beginning and self.form != "none":
            # What is computed now is no measure: only what is written is decided.
            forced = self.forced
            wanted = load.present if forced is None else self._splits.at_ratio(load, forced)
        recomputed = self._feasible(load, wanted)
        self._last = load, recomputed
        predicted = self.corrections.applied(
            self.times.of_pass(load, recomputed, self._ratio), prefills=_prefills(load)
        )
        elapsed_s = predicted.bound_s * self.corrections.elapsed.factor
        return Decision(self._ratio, self.form, recomputed, wanted, predicted, elapsed_s)

    def foresee(self, load: PassLoad) -> float:
        """The ratio that would be best if every pass had this load; changes nothing."""
        if self.form == "none" or not load.offloaded_tokens:
            return 0.0
        if self.forced is not None:
            return self.forced
        return sum(self._best(load)) / load.offloaded_tokens

    def learn(self, measured: PassMeasured) -> PassBound:
        """Take in what the pass decided last has really taken.

        Returns what it would have taken by what was known before the run: the seconds of its
        computing, and of the bytes it really moved.
        """
        assert self._last is not None, "a pass is learnt from after it was decided"
        load, decided = self._last
        recomputed = decided if measured.recomputed is None else measured.recomputed
        predicted = self.times.of_pass(load, recomputed, self._ratio)
        rates, m = self.times.rates, measured
        self.corrections.learn(predicted, rates, m, prefills=_prefills(load))
        return PassBound(
            self._compute_factor * predicted.compute_s,
            0.0,
            seconds_on(m.link_in_bytes, rates.h2d_bytes_per_s),
            seconds_on(m.link_out_bytes, rates.d2h_bytes_per_s),
            seconds_on(m.disk_bytes, rates.disk_bytes_per_s),
        )

    def _wanted(self, load: PassLoad) -> Split:
        """Where every batch should be; keeps the ratio where another gains too little."""
        if self.form == "none" or not load.offloaded_tokens:
            self._ratio = 0.0 if self.form == "none" else self.forced or self._ratio
            return (0,) * len(load.batches)
        if self.forced is not None:
            self._ratio = self.forced
            return self._splits.at_ratio(load, self.forced)
        best = self._best(load)
        kept = self._kept(load)
        less = sum(best) < sum(kept)
        gain_s = self._steady_s(load, kept) - self._steady_s(load, best)
        if gain_s <= LEAST_CHANGE * self._steady_s(load, kept):
            self._calls_for_less = 0
            return kept
        self._calls_for_less = self._calls_for_less + 1 if less else 0
        if less and self._calls_for_less < PATIENCE:
            return kept
        self._ratio = sum(best) / load.offloaded_tokens
        return self._splits.towards(load, best, load.offloaded_tokens)

    def _kept(self, load: PassLoad) -> Split:
        """The split that goes on as before: as contexts grow, their recomputed part does."""
        as_before = self._splits.at_share(load, self._ratio)
        if sum(as_before) <= sum(load.present):
            return load.present
        return self._splits.towards(load, as_before, load.offloaded_tokens)

    def _feasible(self, load: PassLoad, wanted: Split) -> Split:
        """What this pass can leave recomputed on the way to what is wanted."""
        present = load.present
        if self.form == "activations":
            # Sequences keep whole blocks each, so a forced ratio is kept by what new tokens become.
            wanted = present if self.forced is not None else tuple(map(min, wanted, present))
        if self.forced is not None or sum(wanted) >= sum(present):
            return wanted
        rate = self.times.rates.d2h_bytes_per_s / self.corrections.link_out.factor
        if rate <= 0:
            return wanted
        # Going back means to write out: only so much that the pass is not the longer for it.
        written_s = self.times.link_out_s(load, self._ratio) * self.corrections.link_out.factor
        room_s = self._steady_s(load, present) - written_s
        tokens = max(self._splits.block_tokens, room_s * rate / self.times.kv_bytes)
        return self._splits.towards(load, wanted, tokens)

    def _best(self, load: PassLoad) -> Split:
        """The split for which compute and the links end together, with the least recomputed."""
        return self._splits.meeting(load, self._compute_s(load), self._links_s(load))

    def _steady_s(self, load: PassLoad, split: Split) -> float:
        """Seconds of a pass that stays with the split: nothing is written out to get there."""
        return max(self._compute_s(load)(split), self._links_s(load)(split))

    def _compute_s(self, load: PassLoad) -> Callable[[Split], float]:
        """Seconds of compute by the split."""
        factor = self.corrections.computing(_prefills(load)).factor
        compute_s = self.times.compute_s(load)
        return lambda split: factor * compute_s(split)

    def _links_s(self, load: PassLoad) -> Callable[[Split], float]:
        """Seconds of the busiest link by the split."""
        times, factors = self.times, self.corrections
        offloaded = max(1, load.offloaded_tokens)
        disk_s = times.disk_s(load) * factors.disk.factor
        return lambda split: max(
            times.link_in_s(load, split) * factors.link_in.factor,
            times.link_out_s(load, sum(split) / offloaded) * factors.link_out.factor,
            disk_s,
        )


def _prefills(load: PassLoad) -> bool:
    """Whether prefill makes the pass another one than those that follow it."""
    rows = sum(b.rows for b in load.batches)
    return rows > 2 * sum(max(b.logit_rows, b.offloaded_sequences) for b in load.batches)


def _as_decoded(load: PassLoad) -> PassLoad:
    """The decode pass that follows if all a prefill writes is off the device afterwards."""
    batches = []
    for b in load.batches:
        tokens = b.offloaded_tokens + b.written_tokens
        sequences = max(1, b.logit_rows, b.offloaded_sequences)
        rows = min(b.rows, sequences)
        batches.append(BatchLoad(rows, rows, tokens, tokens, 0, rows, sequences, tokens))
    return replace(load, batches=tuple(batches))
