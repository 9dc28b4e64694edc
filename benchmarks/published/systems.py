"""How published systems place a model and order its passes, for the simulator."""

from __future__ import annotations

from dataclasses import dataclass

from tightrun.policies.forms import recipe_of
from tightrun.policies.hardware import Rates
from tightrun.policies.lengths import Lengths
from tightrun.policies.placement import Placement
from tightrun.policies.plan import Predicted
from tightrun.policies.shape import ModelShape
from tightrun.policies.simulate import Policy, simulate

BLOCK_TOKENS = 16

# FlexGen's column-by-column order; what a batch has written goes out beside the next one.
FLEXGEN = Policy("static", stores_beside=True)
FLEXGEN_CPU_ATTENTION = Policy("static", stores_beside=True, host_attention="serial")
# Weights loaded for every layer as it is reached, nothing beside anything.
LAYER_BY_LAYER = Policy("sync")


@dataclass(frozen=True, slots=True)
class Setup:
    """A system's placement: `batches` of `batch_size` in a block, all prompts in one pass.

    `streamed` is the share of the layers' weights that crosses the link in every pass, `from_disk`
    the share that comes from the disk. The KV is on the device or, with `kv_away`, off it;
    `kv_on_disk` adds the reading of the mean context to the disk's work.
    """

    batch_size: int
    batches: int
    streamed: float
    from_disk: float = 0.0
    kv_away: bool = True
    kv_on_disk: bool = False

    def placement(self, shape: ModelShape, prompt: int, output: int) -> Placement:
        blocks = self.batch_size * -(-(prompt + output) // BLOCK_TOKENS)
        weights = float(sum(layer.weight_bytes for layer in shape.layers))
        context = self.batch_size * self.batches * (prompt + output / 2)
        kv_bytes = context * shape.kv_bytes_per_token if self.kv_on_disk else 0.0
        return Placement(
            batches=self.batches,
            batch_size=self.batch_size,
            prefill_tokens=self.batch_size * prompt,
            most_rows=0,
            block_tokens=BLOCK_TOKENS,
            kv_blocks=0 if self.kv_away else self.batches * blocks,
            lane_blocks=blocks if self.kv_away else 0,
            streamed=len(shape.layers),
            weight_bytes=self.streamed * weights,
            disk_bytes=self.from_disk * weights + kv_bytes,
        )

    def predict(
        self, shape: ModelShape, rates: Rates, prompt: int, output: int, policy: Policy
    ) -> Predicted:
        """What one block of rows of these lengths comes to."""
        return simulate(
            shape,
            rates,
            recipe_of(shape),
            self.placement(shape, prompt, output),
            Lengths((prompt,), output, self.batch_size * self.batches),
            policy,
        )
