"""How fast a division of the memories would run: the long run of a job, from counts alone."""

from __future__ import annotations

from tightrun.policies.compute_times import ComputeTimes
from tightrun.policies.cost import seconds_on
from tightrun.policies.forms import Form, Recipe
from tightrun.policies.hardware import Rates
from tightrun.policies.lengths import Lengths
from tightrun.policies.offload_memory import Division, MemorySums

# Rounds of sequences that are reckoned with where nobody knows how many rows there are.
WAVES = 4


class SpeedModel:
    """Output tokens per second of a job of sequences of these lengths.

    Context is recomputed as far as helps, whatever ratio is forced: what is resident must not
    depend on that, or runs of several ratios could not be compared.

    At first all places are prefilled. As they fall free they are refilled, so that prefill and
    decode share the passes, until at the end there is only decode.
    """

    def __init__(
        self,
        sums: MemorySums,
        rates: Rates,
        lengths: Lengths,
        recipe: Recipe,
        form: Form,
    ) -> None:
        self.sums = sums
        self.rates = rates
        self.lengths = lengths
        self.form: Form = form
        self._computing = ComputeTimes(sums.shape, rates)
        self._saved = recipe.saved_bytes(form)
        self._recompute_s = recipe.flops(form) / rates.best_flops_per_s
        self._kv_bytes = sums.layers * sums.block_bytes / sums.block_tokens
        if form == "tokens":
            self._recompute_s += self._computing.key_s * lengths.typical / 2

    def output_tokens_per_s(self, d: Division) -> float:
        """Output tokens per second of all sequences that find room."""
        size = self.sums.block_tokens
        each = -(-self.lengths.typical // size)
        places = min(d.batches * d.batch_size, self.lengths.sequences or d.batches * d.batch_size)
        resident = min(places, d.kv_blocks // each)
        sequences = min(places, resident + d.batches * (d.workspace_blocks // each))
        if sequences == 0:
            # Not one of typical length: a short one runs now and then.
            sequences, resident = 1, int(d.workspace_blocks == 0)
        away = sequences - resident
        output, tokens = self.lengths.output, sequences * self.lengths.prompt
        width = d.batches * max(1, d.prefill_tokens - d.batch_size)
        first = max(1.0, tokens / width)
        begin_s = first * self._pass_s(d, tokens / first, 0, sequences, away)
        end_s = output * self._pass_s(d, sequences, sequences, sequences, away)
        waves = WAVES if self.lengths.sequences is None else self.lengths.sequences / sequences
        if waves <= 1:
            return sequences * output / (begin_s + end_s)
        passes = max(float(output), tokens / width)
        rows, decoded = sequences * self.lengths.typical / passes, sequences * output / passes
        wave_s = passes * self._pass_s(d, rows, decoded, sequences, away)
        return waves * sequences * output / (begin_s + (waves - 1) * wave_s + end_s)

    def _pass_s(
        self, d: Division, rows: float, decoded: float, sequences: int, offloaded: int
    ) -> float:
        """Seconds of a mean pass with so many rows and sequences over all its batches."""
        context = self.lengths.mean_context
        compute_s = self._compute_s(d, rows, decoded, sequences)
        # Prefill alone brings back nothing of what it writes.
        away = offloaded * context if decoded else 0.0
        kv_bytes = away * self._kv_bytes
        weight_bytes = self.sums.streamed_bytes(d) if not self.sums.one_memory else 0
        link_in_s = seconds_on(weight_bytes + kv_bytes, self.rates.h2d_bytes_per_s)
        saved_s = seconds_on(self._saved, self.rates.h2d_bytes_per_s)
        share = 0.0
        if away and self.form != "none":
            least = (link_in_s - compute_s) / (self._recompute_s + saved_s)
            tokens = min(away, max(0.0, least))
            if self.form == "tokens":
                tokens = min(tokens, d.batches * max(0.0, d.most_rows - rows / d.batches))
            compute_s += tokens * self._recompute_s
            link_in_s -= tokens * saved_s
            share = tokens / away
        written = rows * offloaded / sequences * (self._kv_bytes - share * self._saved)
        return max(
            compute_s,
            link_in_s,
            seconds_on(written, self.rates.d2h_bytes_per_s),
            seconds_on(self.sums.disk_bytes(d), self.rates.disk_bytes_per_s),
        )

    def _compute_s(self, d: Division, rows: float, decoded: float, sequences: int) -> float:
        """Seconds of products, attention and calls."""
        context, count = self.lengths.mean_context, d.batches
        read = sequences * context
        attended = max(read, decoded * context + (rows - decoded) * self.lengths.prompt / 2)
        computing = self._computing
        batch_s = computing.dense_s(rows / count) + computing.head_s(decoded / count)
        batch_s += computing.batch_s
        return count * batch_s + computing.attention_s(attended, read) + computing.pass_s
