"""The seconds of a pass from the counts of its batches: what a search and a simulation ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tightrun.policies.compute_times import ComputeTimes
from tightrun.policies.cost import seconds_on
from tightrun.policies.forms import Form, Recipe
from tightrun.policies.hardware import Rates
from tightrun.policies.row_times import product_times
from tightrun.policies.schedule import BatchSeconds, Schedule, Streaming, elapsed_s
from tightrun.policies.shape import ModelShape

# Where the share of the context that is recomputed is narrowed down to this, it is found.
NEAR = 2e-3
STEPS = 12


@dataclass(frozen=True, slots=True)
class Policy:
    """How passes run: the schedule, the form context is recomputed in, and a forced ratio of it.

    With `host_attention` the processor attends to what of the context is in host memory, where it
    lies: `serial` while the device waits (FlexGen's), or `beside` it. `stores_beside`: see
    schedule.elapsed_s.
    """

    schedule: Schedule = "adaptive"
    form: Form = "none"
    forced: float | None = None
    host_attention: Literal["none", "serial", "beside"] = "none"
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
    """Seconds of the passes of one model on one machine, by one policy."""

    def __init__(self, shape: ModelShape, rates: Rates, recipe: Recipe, policy: Policy) -> None:
        self.policy = policy
        self.computing = ComputeTimes(shape, rates)
        self._rates = rates
        self._shape = shape
        self._windows = shape.has_windows
        self._form: Form = policy.form
        self._host_attends = policy.host_attention != "none"
        self._kv_bytes = recipe.kv_bytes
        self._saved_bytes = recipe.saved_bytes(self._form)
        self._projections = product_times(rates, recipe.flops(self._form))

    def streaming(
        self, streamed: int, weight_bytes: float, disk_bytes: float, slots: int, *, from_disk: bool
    ) -> Streaming:
        """What `streamed` layers of weights take of every pass; see `Placement`."""
        link_s = seconds_on(weight_bytes, self._rates.h2d_bytes_per_s)
        disk_s = seconds_on(disk_bytes, self._rates.disk_bytes_per_s)
        if from_disk:
            link_s, disk_s = disk_s, 0.0
        return Streaming(len(self._shape.layers), streamed, link_s, disk_s, slots - 1, from_disk)

    def of_pass(
        self,
        batches: Sequence[BatchCounts],
        streaming: Streaming,
        most_rows: int = 0,
        written_ratio: float = 0.0,
    ) -> PassSeconds:
        """A pass of these batches, none of more than `most_rows` rows with what it replays (0: no
        end); a share `written_ratio` of its new tokens is written in the recompute form."""
        if self._windows:
            batches = [self._through_windows(batch) for batch in batches]
        count = len(batches)
        mean = BatchCounts(*(sum(column) / count for column in zip(*batches, strict=True)))
        ratio = self._ratio(mean, count, streaming, most_rows)
        written_bytes = self._kv_bytes - written_ratio * self._saved_bytes
        parts, reading_s = [], 0.0
        for batch in batches:
            tokens = self._recomputed(batch, ratio, most_rows)
            parts.append(self._batch(batch, tokens, written_bytes))
            reading_s += self.computing.reading_s(batch.rows, batch.context)
        times = len(batches) if self.policy.schedule == "sync" else 1
        parts, streaming = self._beside_disk(parts, times, streaming)
        found = self._whole(parts, reading_s, times, streaming, ratio)
        if self.policy.host_attention != "beside":
            return found
        host_s = self._host_s(sum(batch.offloaded for batch in batches))
        return found._replace(elapsed_s=max(found.elapsed_s, host_s))

    def alike_s(
        self, batch: BatchCounts, count: int, streaming: Streaming, most_rows: int
    ) -> float:
        """Seconds of a pass of `count` equal batches, of whose new tokens as large a share is
        written in the recompute form as is recomputed."""
        if self._windows:
            batch = self._through_windows(batch)
        ratio = self._ratio(batch, count, streaming, most_rows)
        written_bytes = self._kv_bytes - ratio * self._saved_bytes
        part = self._batch(batch, self._recomputed(batch, ratio, most_rows), written_bytes)
        parts, streaming = self._beside_disk([part] * count, 1, streaming)
        return self._elapsed_s(
            parts,
            streaming,
            streaming.weights_s * (not streaming.from_disk) + count * part.fetch_s,
            count * part.store_s,
        )

    def _ratio(self, mean: BatchCounts, count: int, streaming: Streaming, most_rows: int) -> float:
        """The share of the context off the device for which computing and link end together, by the
        distributor's rule, for so many mean batches."""
        if self._form == "none" or not mean.offloaded:
            return 0.0
        if self.policy.forced is not None:
            return self.policy.forced

        def over_s(ratio: float) -> float:
            """Seconds by which the link is the slower one: less, the more is recomputed."""
            part = self._batch(mean, self._recomputed(mean, ratio, most_rows), 0.0)
            waits_s = streaming.weights_s + count * (part.fetch_s - part.layers_s - part.head_s)
            return waits_s - self.computing.pass_s

        return _crossing(over_s)

    def _whole(
        self,
        parts: Sequence[BatchSeconds],
        reading_s: float,
        times: int,
        streaming: Streaming,
        ratio: float,
    ) -> PassSeconds:
        """The pass of these batches; weights cross `times` times."""
        computing_s, in_s, out_s = self.computing.pass_s, 0.0, 0.0
        for part in parts:
            computing_s += part.layers_s + part.head_s
            in_s += part.fetch_s
            out_s += part.store_s
        disk_s = times * streaming.disk_s
        if streaming.from_disk:
            disk_s = times * streaming.weights_s
        else:
            in_s += times * streaming.weights_s
        total_s = self._elapsed_s(parts, streaming, in_s, out_s)
        busy_s = (max(0.0, computing_s - reading_s), reading_s, in_s, out_s, disk_s)
        return PassSeconds(total_s, busy_s, ratio)

    def _beside_disk(
        self, parts: list[BatchSeconds], times: int, streaming: Streaming
    ) -> tuple[list[BatchSeconds], Streaming]:
        """The batches of a pass and the reading of its weights, each slowed down by the other."""
        disk_s = times * (streaming.weights_s if streaming.from_disk else streaming.disk_s)
        if not disk_s or self._rates.work is None:
            return parts, streaming
        computing_s = self.computing.pass_s + sum(x.layers_s + x.head_s for x in parts)
        compute_s, beside_s = self._rates.beside_disk(computing_s, disk_s)
        more_s = (compute_s - computing_s) / len(parts)
        parts = [part._replace(layers_s=part.layers_s + more_s) for part in parts]
        each_s = beside_s / times
        if streaming.from_disk:
            return parts, streaming._replace(weights_s=each_s)
        return parts, streaming._replace(disk_s=each_s)

    def _elapsed_s(
        self, parts: Sequence[BatchSeconds], streaming: Streaming, in_s: float, out_s: float
    ) -> float:
        """Seconds of the pass by its schedule; all that crosses the link takes `in_s`, `out_s`."""
        rates = self._rates
        both = in_s * rates.h2d_bytes_per_s + out_s * rates.d2h_bytes_per_s
        return elapsed_s(
            self.policy.schedule,
            parts,
            streaming,
            between_s=self.computing.pass_s,
            both_ways_s=seconds_on(both, rates.duplex_bytes_per_s),
            stores_beside=self.policy.stores_beside,
        )

    def _through_windows(self, batch: BatchCounts) -> BatchCounts:
        """The batch with the context off the device that sliding windows leave to be fetched."""
        if not batch.offloaded_sequences:
            return batch
        share = self._shape.seen_share(batch.offloaded / batch.offloaded_sequences)
        return batch._replace(offloaded=share * batch.offloaded)

    def _host_s(self, tokens: float) -> float:
        """Seconds of the processor's attention to so many tokens: it reads their KV once."""
        return tokens * self._kv_bytes / self._rates.host_bytes_per_s

    def _recomputed(self, batch: BatchCounts, ratio: float, most_rows: int) -> float:
        """Tokens a batch recomputes; replayed ones share its rows."""
        tokens = ratio * batch.offloaded
        if self._form == "tokens" and most_rows:
            tokens = min(tokens, max(0.0, most_rows - batch.rows))
        return tokens

    def _batch(self, batch: BatchCounts, recomputed: float, written_bytes: float) -> BatchSeconds:
        """A batch that recomputes so many tokens; each new one off the device is so many bytes."""
        computing, rates = self.computing, self._rates
        rows, logit_rows, attended, context, offloaded, sequences, written = batch
        layers_s, fetched = computing.batch_s, self._kv_bytes * offloaded
        if (offloaded or written) and not self._host_attends:
            layers_s += computing.offload_s
        if self._host_attends:
            if self.policy.host_attention == "serial":
                layers_s += self._host_s(offloaded)
            attended, context, fetched = attended - offloaded, context - offloaded, 0.0
        fetched -= self._saved_bytes * recomputed
        if self._form == "tokens":
            rows += recomputed
            layers_s += recomputed * computing.key_s * offloaded / max(1.0, sequences) / 2
        elif self._form == "activations":
            layers_s += self._projections.seconds(recomputed)
        return BatchSeconds(
            layers_s
            + computing.dense_s(rows)
            + computing.attention_s(batch.rows, attended, context),
            computing.head_s(logit_rows),
            seconds_on(fetched, rates.h2d_bytes_per_s),
            seconds_on(written * written_bytes, rates.d2h_bytes_per_s),
        )


def _crossing(falling: Callable[[float], float]) -> float:
    """Where between 0 and 1 a falling function is zero: by false position (the Illinois form), for
    it is nearly a straight line. The end next to it where it never is zero."""
    low, high = 0.0, 1.0
    above, below = falling(low), falling(high)
    if above <= 0:
        return low
    if below >= 0:
        return high
    near, last = NEAR * above, 0.0
    for _ in range(STEPS):
        middle = low + (high - low) * above / (above - below)
        value = falling(middle)
        if abs(value) <= near or high - low < NEAR:
            return middle
        if value > 0:
            low, above, below = middle, value, below / 2 if last > 0 else below
        else:
            high, below, above = middle, value, above / 2 if last < 0 else above
        last = value
    return low
