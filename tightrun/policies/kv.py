"""The KV distributor: before every pass, which part of each batch's context is computed again.

The rule is TightLLM's: of all integers, the one for which compute and link in end together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tightrun.policies.cost import PassBound
from tightrun.policies.hardware import Rates
from tightrun.policies.shape import ModelShape

Form = Literal["tokens", "activations", "none"]


@dataclass(frozen=True, slots=True)
class BatchLoad:
    """What one batch of the coming pass computes, and the context it has off the device.

    `rows` and `attended` (keys seen, summed over the rows) leave replayed tokens out.
    `offloaded_tokens` are context tokens that are not resident on the device, in the form of
    host KV or in the recompute form; `recomputed_tokens` of them are in the recompute form now.
    `written_tokens` are those of `rows` that join them. Under sliding windows, tokens count by the
    share of the layers' bytes that is kept of them.
    """

    rows: int
    logit_rows: int
    attended: int
    offloaded_tokens: int = 0
    recomputed_tokens: int = 0
    written_tokens: int = 0
    offloaded_sequences: int = 1
    context_tokens: int = 0


@dataclass(frozen=True, slots=True)
class PassLoad:
    """The coming pass: its batches, and the bytes of weights that cross the links beside them."""

    batches: tuple[BatchLoad, ...]
    weight_bytes_in: int = 0
    weight_bytes_disk: int = 0


@dataclass(frozen=True, slots=True)
class PassMeasured:
    """What a pass took: seconds each lane was busy (waiting left out) and bytes it moved.

    `recomputed` is what was really recomputed per batch, None where it is what was decided.
    """

    elapsed_s: float
    compute_s: float
    link_in_s: float = 0.0
    link_in_bytes: int = 0
    link_out_s: float = 0.0
    link_out_bytes: int = 0
    disk_s: float = 0.0
    disk_bytes: int = 0
    recomputed: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The split of a pass. `recomputed` are tokens per batch: whole KV blocks, or all there are.

    Where a batch's figure is below what it has in the recompute form now, the pass recomputes
    what it has and writes the difference out as KV, so that the next pass has that much less.
    `ratio` is the share new tokens of the pass should be given to the recompute form.
    `predicted` are seconds per resource; `elapsed_s` the pass, with what is known not to overlap.
    """

    ratio: float
    form: Form
    recomputed: tuple[int, ...]
    predicted: PassBound
    elapsed_s: float


class Distributor:
    """Decides before each pass, and learns from each how fast the machine really is.

    `activation_bytes` and `projection_flops_per_token` are of one token over all layers.
    `most_rows` is the width of a batch's workspace, which its replayed tokens share (0: no end).
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
    ) -> None:
        raise NotImplementedError

    def decide(self, load: PassLoad) -> Decision:
        """The best split of the coming pass, or the present one where little is to be gained."""
        raise NotImplementedError

    def foresee(self, load: PassLoad) -> float:
        """The ratio that would be best if every pass had this load; changes nothing."""
        raise NotImplementedError

    def learn(self, measured: PassMeasured) -> None:
        """Take in what the pass decided last has really taken."""
        raise NotImplementedError
