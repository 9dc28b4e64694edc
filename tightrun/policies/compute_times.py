"""Seconds of computing a batch, from counts alone: as timed for the model, else from its products.

Everything that predicts uses these: the distributor, the search and the simulator. Nothing here is
fitted to runs, and nothing here is part of a bound.
"""

from __future__ import annotations

from tightrun.policies.hardware import Rates
from tightrun.policies.row_times import RowTimes, product_times
from tightrun.policies.shape import ModelShape

# What one layer of one batch costs beside its products, calls and small kernels, where nobody could
# time the model itself.
LAYER_CALL_S = 1e-4


class ComputeTimes:
    """Seconds of one batch, over all layers.

    `batch_s` and `pass_s` are what the host takes for each batch and each pass beside them,
    `offload_s` for each batch that has context off the device.
    """

    def __init__(self, shape: ModelShape, rates: Rates) -> None:
        work, layers = rates.work, len(shape.layers)
        self._shape = shape
        self._windows = shape.has_windows
        dense = sum(x.dense_parameters for x in shape.layers)
        self._dense_flops = 2.0 * dense
        self._weight_bytes = sum(x.weight_bytes for x in shape.layers)
        # Of a mixture of experts, a row is multiplied with a part of the weights.
        touched = dense * shape.element_bytes
        self._touched_share = min(1.0, touched / max(1, self._weight_bytes))
        self._memory_bytes_per_s = rates.memory_bytes_per_s
        self._best = rates.best_flops_per_s
        key_flops = shape.attention_flops(1, 1)
        if work is None:
            self._layers = product_times(rates, self._dense_flops)
            self._head = product_times(rates, shape.head_flops_per_row)
            self._call_s = layers * LAYER_CALL_S
            self._scale = 1.0
            self.key_s = key_flops / self._best
            read_s = shape.kv_bytes_per_token / rates.memory_bytes_per_s
            self.context_s = max(self.key_s, read_s)
            self.batch_s = self.pass_s = self.offload_s = self._attention_call_s = 0.0
        else:
            self._layers, self._head = RowTimes(work.layer_s), RowTimes(work.head_s)
            self._call_s = 0.0
            self._scale = float(layers)
            self.key_s = key_flops / work.attended_flops_per_s
            self.context_s = shape.kv_bytes_per_token / work.attended_bytes_per_s
            self.batch_s, self.pass_s = work.batch_s, work.pass_s
            self._attention_call_s = layers * work.attention_s
            self.offload_s = layers * work.context_s

    def dense_s(self, rows: float) -> float:
        """Seconds of the layers without their attention. A batch of a mixture of experts reads all
        the experts that its rows touch, however few rows each of them gets."""
        if rows <= 0:
            return 0.0
        return self._call_s + max(self._scale * self._layers.seconds(rows), self._weights_s(rows))

    def head_s(self, rows: float) -> float:
        """Seconds of the logits and the tokens of so many rows."""
        return self._head.seconds(rows)

    def attention_s(self, rows: float, attended: float, context: float) -> float:
        """Seconds of the attention of so many rows: decode reads its `context` once, and what more
        keys are `attended` (summed over the rows) are products of prefill. Both are counted as if
        every layer saw all of them."""
        seconds = context * self.context_s + max(0.0, attended - context) * self.key_s
        if self._windows and rows:
            seconds *= self._shape.seen_share(attended / rows)
        return seconds + (self._attention_call_s if rows else 0.0)

    def reading_s(self, rows: float, context: float) -> float:
        """The part of a batch's layers that waits for device memory: KV read by decode, and the
        products of so few rows that reading their weights takes longer than they do."""
        context_s = context * self.context_s
        products_s = rows * self._dense_flops / self._best
        return context_s + (self.dense_s(rows) if self._weights_s(rows) > products_s else 0.0)

    def _weights_s(self, rows: float) -> float:
        """Seconds of reading from device memory the weights that so many rows touch."""
        missed: float = (1.0 - self._touched_share) ** rows
        return self._weight_bytes * (1.0 - missed) / self._memory_bytes_per_s
