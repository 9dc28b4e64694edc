"""How fast a division of the memories would run: the time of the whole job, from counts alone."""

from __future__ import annotations

import math

from tightrun.policies.forms import Form, Recipe
from tightrun.policies.hardware import Rates
from tightrun.policies.lengths import Lengths
from tightrun.policies.offload_memory import SLOTS, Division, MemorySums
from tightrun.policies.pass_cost import BatchCounts, PassCost, Policy
from tightrun.policies.schedule import Streaming
from tightrun.policies.simulate import WAVES


class SpeedModel:
    """Output tokens per second of a job of sequences of these lengths, reckoned with mean passes.

    Context is recomputed as far as helps, whatever ratio is forced: what is resident must not
    depend on that, or runs of several ratios could not be compared. For the same reason the
    schedule is `adaptive` whatever is asked.

    At first all places are prefilled. As they fall free they are refilled, so that prefill and
    decode share the passes, until at the end there is only decode.
    """

    def __init__(
        self, sums: MemorySums, rates: Rates, lengths: Lengths, recipe: Recipe, form: Form
    ) -> None:
        self.sums = sums
        self.lengths = lengths
        self._cost = PassCost(sums.shape, rates, recipe, Policy(form=form))
        self._blocks_each = lengths.blocks(sums.block_tokens)
        self._found: dict[tuple[int, int], Streaming] = {}

    def output_tokens_per_s(self, d: Division) -> float:
        """Output tokens per second of all sequences that find room."""
        lengths = self.lengths
        sequences, resident = self._running(d)
        away = (sequences - resident) / sequences
        output, tokens = lengths.output, sequences * lengths.prompt
        width = d.batches * max(1, d.prefill_tokens - d.batch_size)
        first = max(1.0, tokens / width)
        begin_s = first * self._pass_s(d, tokens / first, 0, sequences, away)
        end_s = output * self._pass_s(d, sequences, sequences, sequences, away)
        waves = WAVES if lengths.sequences is None else lengths.sequences / sequences
        if waves <= 1:
            return sequences * output / (begin_s + end_s)
        passes = max(float(output), tokens / width)
        rows, decoded = sequences * lengths.typical / passes, sequences * output / passes
        wave_s = passes * self._pass_s(d, rows, decoded, sequences, away)
        return waves * sequences * output / (begin_s + (waves - 1) * wave_s + end_s)

    def most_tokens_per_s(self, d: Division) -> float:
        """Output tokens per second that are never exceeded: a token of each sequence for every
        time that the weights come in."""
        streaming = self._streaming(d)
        least_s = max(streaming.weights_s, streaming.disk_s)
        return self._running(d)[0] / least_s if least_s else math.inf

    def _running(self, d: Division) -> tuple[int, int]:
        """Sequences that find room together, and those of them on the device."""
        each, places = self._blocks_each, d.batches * d.batch_size
        places = min(places, self.lengths.sequences or places)
        resident = min(places, d.kv_blocks // each)
        sequences = min(places, resident + d.batches * (d.workspace_blocks // each))
        if sequences == 0:
            # Not one of typical length: a short one runs now and then.
            return 1, int(d.workspace_blocks == 0)
        return sequences, resident

    def _pass_s(
        self, d: Division, rows: float, decoded: float, sequences: int, away: float
    ) -> float:
        """Seconds of a mean pass of so many rows, `decoded` of them for tokens of outputs, over
        sequences of which a share is `away` from the device."""
        lengths, batches = self.lengths, min(d.batches, sequences)
        # Prefill alone brings back nothing of what it writes.
        read = sequences * lengths.mean_context if decoded else 0.0
        attended = read + (rows - decoded) * lengths.prompt / 2
        counts = (rows, decoded, attended, read, away * read, away * sequences, away * rows)
        batch = BatchCounts(*(x / batches for x in counts))
        return self._cost.alike_s(batch, batches, self._streaming(d), d.most_rows)

    def _streaming(self, d: Division) -> Streaming:
        """What the division's weights take of a pass; it shares that with many others."""
        key = d.resident, d.disk
        if key not in self._found:
            sums = self.sums
            self._found[key] = self._cost.streaming(
                streamed=sums.layers - d.resident,
                weight_bytes=0.0 if sums.one_memory else sums.streamed_bytes(d),
                disk_bytes=sums.disk_bytes(d),
                slots=SLOTS,
                from_disk=sums.one_memory,
            )
        return self._found[key]
