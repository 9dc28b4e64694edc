"""The time of an offloaded pass on each resource, for a split of its context."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tightrun.policies.cost import PassBound, seconds_on
from tightrun.policies.forms import Form, Recipe
from tightrun.policies.hardware import Rates
from tightrun.policies.loads import BatchLoad, PassLoad
from tightrun.policies.row_times import RowTimes
from tightrun.policies.shape import ModelShape


class PassTimes:
    """Seconds of a pass from counts and probed rates. A split is recomputed tokens per batch."""

    def __init__(self, shape: ModelShape, rates: Rates, form: Form, recipe: Recipe) -> None:
        self.rates = rates
        self.kv_bytes = recipe.kv_bytes
        self._form = form
        self._saved_bytes = recipe.saved_bytes(form)
        self._recompute_flops = recipe.flops(form)
        self._dense_flops = shape.dense_flops_per_token
        self._head_flops = shape.head_flops_per_row
        self._key_flops = shape.attention_flops(1, 1)
        self._products = RowTimes(rates)

    def compute_s(self, load: PassLoad) -> Callable[[Sequence[int]], float]:
        """Seconds of all products and all attention, one batch after the other, by the split."""
        batches = [self._batch_s(batch) for batch in load.batches]
        return lambda split: sum(
            [seconds(tokens) for seconds, tokens in zip(batches, split, strict=True)]
        )

    def head_s(self, batch: BatchLoad) -> float:
        """Seconds of one batch's logits."""
        return self._products.seconds(batch.logit_rows, self._head_flops)

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
        """Seconds of the weights that come from the disk."""
        return seconds_on(load.weight_bytes_disk, self.rates.disk_bytes_per_s)

    def of_pass(self, load: PassLoad, split: Sequence[int], share: float) -> PassBound:
        """The pass that leaves `split` recomputed: what is to be written is computed once more."""
        present = load.present
        computed = tuple(map(max, present, split))
        returned = sum(max(0, p - s) for p, s in zip(present, split, strict=True))
        return PassBound(
            self.compute_s(load)(computed),
            0.0,
            self.link_in_s(load, computed),
            self.link_out_s(load, share, returned),
            self.disk_s(load),
        )

    def _batch_s(self, batch: BatchLoad) -> Callable[[int], float]:
        """Seconds of one batch by the tokens it recomputes."""
        product_s, best = self._products.seconds, self.rates.best_flops_per_s
        # Few rows over a long context are bound by reading it, many by the products.
        own_s = self.head_s(batch) + max(
            batch.attended * self._key_flops / best,
            batch.context_tokens * self.kv_bytes / self.rates.memory_bytes_per_s,
        )
        rows, flops = batch.rows, self._recompute_flops
        if self._form != "tokens":
            own_s += product_s(rows, self._dense_flops)
            return lambda tokens: own_s + product_s(tokens, flops)
        # Whole sequences are replayed, and each of their tokens sees half of its own on average.
        mean = batch.offloaded_tokens / max(1, batch.offloaded_sequences)
        seen_s = mean / 2 * self._key_flops / best
        return lambda tokens: own_s + tokens * seen_s + product_s(rows + tokens, flops)
