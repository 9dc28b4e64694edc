"""The seconds of a pass of a placed model, from the counts of its batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tightrun.policies.compute_times import ComputeTimes
from tightrun.policies.cost import seconds_on
from tightrun.policies.forms import Form, Recipe
from tightrun.policies.hardware import Rates
from tightrun.policies.placement import Placement
from tightrun.policies.row_times import product_times
from tightrun.policies.schedule import BatchSeconds, Schedule, Streaming, elapsed_s
from tightrun.policies.shape import ModelShape

# Halvings of the recompute ratio: to a 4096th.
HALVINGS = 12


@dataclass(frozen=True, slots=True)
class Policy:
    """How passes run: the schedule, the form context is recomputed in, and a forced ratio of it.

    With `host_attends` the processor attends to what of the context is in host memory, where it
    lies, and the device waits for it (FlexGen's attention on the CPU). `stores_beside`: see
    schedule.elapsed_s.
    """

    schedule: Schedule = "adaptive"
    form: Form = "none"
    forced: float | None = None
    host_attends: bool = False
    stores_beside: bool = False


class BatchCounts(NamedTuple):
    """One batch of a pass: rows in all and those with logits, keys attended (summed over the rows)
    and in memory, context off the device and the sequences it is of, new tokens that join it."""

    rows: float
    logit_rows: float
    attended: float
    context: float
    offloaded: float = 0.0
    offloaded_sequences: float = 0.0
    written: float = 0.0


class PassSeconds(NamedTuple):
    """A pass, and how long each resource is busy in it, in the order of cost.RESOURCES; `ratio` is
    the share of the context off the device that is recomputed."""

    elapsed_s: float
    busy_s: tuple[float, float, float, float, float]
    ratio: float


class PassCost:
    """Seconds of passes of one model, machine, placement and policy."""

    def __init__(
        self,
        shape: ModelShape,
        rates: Rates,
        recipe: Recipe,
        placement: Placement,
        policy: Policy,
    ) -> None:
        self.placement = placement
        self.policy = policy
        self._rates = rates
        self._computing = ComputeTimes(shape, rates)
        self._kv_bytes = recipe.kv_bytes
        self._form: Form = "none" if policy.schedule != "adaptive" else policy.form
        self._saved_bytes = recipe.saved_bytes(self._form)
        self._projections = product_times(rates, recipe.flops(self._form))
        p = placement
        link_s = seconds_on(p.weight_bytes, rates.h2d_bytes_per_s)
        disk_s = seconds_on(p.disk_bytes, rates.disk_bytes_per_s)
        self._disk_s = disk_s
        if p.one_memory:
            link_s, disk_s = disk_s, 0.0
        self._weights_s = link_s
        self._streaming = Streaming(len(shape.layers), p.streamed, link_s, disk_s, p.slots - 1)

    def of_pass(self, batches: Sequence[BatchCounts], written_ratio: float = 0.0) -> PassSeconds:
        """A pass of these batches; a share `written_ratio` of its new tokens is written in the
        recompute form."""
        ratio = self.ratio_for(batches)
        h2d, d2h = self._rates.h2d_bytes_per_s, self._rates.d2h_bytes_per_s
        written_bytes = self._kv_bytes - written_ratio * self._saved_bytes
        computing, seconds = self._computing, []
        reading_s = bytes_in = bytes_out = 0.0
        for batch in batches:
            tokens = self._recomputed(batch, ratio)
            layers_s, batch_reading_s = self._layers_s(batch, tokens)
            fetched = self._fetched_bytes(batch, tokens)
            stored = batch.written * written_bytes
            reading_s += batch_reading_s
            bytes_in += fetched
            bytes_out += stored
            seconds.append(
                BatchSeconds(
                    layers_s + computing.batch_s,
                    computing.head_s(batch.logit_rows),
                    seconds_on(fetched, h2d),
                    seconds_on(stored, d2h),
                )
            )
        times = 1
        if self.policy.schedule == "sync":
            times = len(batches)
        bytes_in += times * self.placement.weight_bytes
        both_ways_s = seconds_on(bytes_in + bytes_out, self._rates.duplex_bytes_per_s)
        total_s = elapsed_s(
            self.policy.schedule,
            seconds,
            self._streaming,
            between_s=computing.pass_s,
            both_ways_s=both_ways_s,
            stores_beside=self.policy.stores_beside,
        )
        computing_s = sum(s.layers_s + s.head_s for s in seconds) + computing.pass_s
        busy_s = (
            computing_s - reading_s,
            reading_s,
            seconds_on(bytes_in, h2d),
            seconds_on(bytes_out, d2h),
            times * self._disk_s,
        )
        return PassSeconds(total_s, busy_s, ratio)

    def ratio_for(self, batches: Sequence[BatchCounts]) -> float:
        """The share of the context off the device for which computing and link end together, by the
        distributor's rule, found for the mean batch."""
        offloaded = sum(batch.offloaded for batch in batches)
        if self._form == "none" or not offloaded:
            return 0.0
        if self.policy.forced is not None:
            return self.policy.forced
        count = len(batches)
        mean = BatchCounts(*(sum(column) / count for column in zip(*batches, strict=True)))
        if self._link_first(mean, count, 1.0):
            return 1.0
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if self._link_first(mean, count, middle):
                low = middle
            else:
                high = middle
        return low

    def _link_first(self, mean: BatchCounts, count: int, ratio: float) -> bool:
        """Whether the link is still the slower one when so much is recomputed."""
        tokens = self._recomputed(mean, ratio)
        computing, batch_s = self._computing, self._layers_s(mean, tokens)[0]
        batch_s += computing.batch_s + computing.head_s(mean.logit_rows)
        fetch_s = seconds_on(self._fetched_bytes(mean, tokens), self._rates.h2d_bytes_per_s)
        link_s = self._weights_s + count * fetch_s
        return link_s > count * batch_s + computing.pass_s

    def _recomputed(self, batch: BatchCounts, ratio: float) -> float:
        """Tokens a batch recomputes; replayed ones share its rows."""
        tokens = ratio * batch.offloaded
        if self._form == "tokens" and self.placement.most_rows:
            tokens = min(tokens, max(0.0, self.placement.most_rows - batch.rows))
        return tokens

    def _fetched_bytes(self, batch: BatchCounts, recomputed: float) -> float:
        if self.policy.host_attends:
            return 0.0
        return self._kv_bytes * batch.offloaded - self._saved_bytes * recomputed

    def _layers_s(self, batch: BatchCounts, recomputed: float) -> tuple[float, float]:
        """Seconds of a batch in all layers, and those of them that device memory takes."""
        computing = self._computing
        rows, attended, context = batch.rows, batch.attended, batch.context
        host_s = more_s = 0.0
        if self.policy.host_attends:
            host_s = batch.offloaded * self._kv_bytes / self._rates.host_bytes_per_s
            attended, context = attended - batch.offloaded, context - batch.offloaded
        if self._form == "tokens":
            rows += recomputed
            more_s = recomputed * computing.key_s
            more_s *= batch.offloaded / max(1.0, batch.offloaded_sequences) / 2
        elif self._form == "activations":
            more_s = self._projections.seconds(recomputed)
        dense_s, reading_s = computing.dense_s(rows), computing.reading_s(rows, context)
        return dense_s + computing.attention_s(attended, context) + more_s + host_s, reading_s
