"""The time of an offloaded pass on each resource, for a split of its context."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tightrun.policies.compute_times import ComputeTimes
from tightrun.policies.cost import PassBound, seconds_on
from tightrun.policies.forms import Form, Recipe
from tightrun.policies.hardware import Rates
from tightrun.policies.loads import BatchLoad, PassLoad
from tightrun.policies.row_times import product_times
from tightrun.policies.shape import ModelShape


class PassTimes:
    """Seconds of a pass from counts and probed rates. A split is recomputed tokens per batch."""

    def __init__(self, shape: ModelShape, rates: Rates, form: Form, recipe: Recipe) -> None:
        self.rates = rates
        self.kv_bytes = recipe.kv_bytes
        self._form = form
        self._saved_bytes = recipe.saved_bytes(form)
        self._computing = ComputeTimes(shape, rates)
        self._projections = product_times(rates, recipe.flops(form))

    def compute_s(self, load: PassLoad) -> Callable[[Sequence[int]], float]:
        """Seconds of all products, all attention and the host, one batch after the other, by the
        split."""
        batches = [self._batch_s(batch) for batch in load.batches]
        beside_s, _ = self.rates.beside_disk(0.0, self.disk_s(load))
        pass_s = self._computing.pass_s + beside_s
        return lambda split: (
            pass_s + sum([seconds(tokens) for seconds, tokens in zip(batches, split, strict=True)])
        )

    def head_s(self, batch: BatchLoad) -> float:
        """Seconds of one batch's logits."""
        return self._computing.head_s(batch.logit_rows)

    def link_in_s(self, load: PassLoad, split: Sequence[int]) -> float:
        """Seconds of the weights and of the context, of which recomputed tokens bring less."""
        kv = self.kv_bytes * load.offloaded_tokens - self._saved_bytes * sum(split)
        return seconds_on(load.weight_bytes_in + kv, self.rates.h2d_bytes_per_s)

    def link_out_s(self, load: PassLoad, share: float, returned: int = 0) -> float:
        """Seconds of what is written: new tokens, a `share` of them in the recompute form, and
        `returned` ones, which become KV again."""
        written = sum(b.written_tokens for b in load.batches)
        nbytes = written * (self.kv_bytes - share * self._saved_bytes) + returned * self.kv_bytes
        return seconds_on(nbytes, self.rates.d2h_bytes_per_s)

    def disk_s(self, load: PassLoad) -> float:
        """Seconds of the weights that come from the disk, with nothing beside."""
        return seconds_on(load.weight_bytes_disk, self.rates.disk_bytes_per_s)

    def of_pass(self, load: PassLoad, split: Sequence[int], share: float) -> PassBound:
        """The pass that leaves `split` recomputed: what is to be written is computed once more."""
        present = load.present
        computed = tuple(map(max, present, split))
        returned = sum(max(0, p - s) for p, s in zip(present, split, strict=True))
        compute_s, disk_s = self.compute_s(load)(computed), self.disk_s(load)
        lost_s, _ = self.rates.beside_disk(0.0, disk_s)
        _, disk_s = self.rates.beside_disk(compute_s - lost_s, disk_s)
        return PassBound(
            compute_s,
            0.0,
            self.link_in_s(load, computed),
            self.link_out_s(load, share, returned),
            disk_s,
        )

    def _batch_s(self, batch: BatchLoad) -> Callable[[int], float]:
        """Seconds of one batch by the tokens it recomputes."""
        computing, rows = self._computing, batch.rows
        own_s = self.head_s(batch) + computing.batch_s
        own_s += computing.attention_s(rows, batch.attended, batch.context_tokens)
        if self._form != "tokens":
            own_s += computing.dense_s(rows)
            projection_s = self._projections.seconds
            return lambda tokens: own_s + projection_s(tokens)
        # Whole sequences are replayed, and each of their tokens sees half of its own on average.
        mean = batch.offloaded_tokens / max(1, batch.offloaded_sequences)
        seen_s = mean / 2 * computing.key_s
        dense_s = computing.dense_s
        return lambda tokens: own_s + tokens * seen_s + dense_s(rows + tokens)
