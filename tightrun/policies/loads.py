"""What a pass has before it, and what it took: the numbers a decision is made and learnt from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchLoad:
    """What one batch of the coming pass computes, and the context it has off the device.

    `rows` and `attended` (keys seen, summed over the rows) leave replayed tokens out;
    `context_tokens` are the keys in memory, those of `attended` counted once per sequence.
    `offloaded_tokens` are context tokens that are not resident on the device, of
    `offloaded_sequences`, as host KV or in the recompute form; `recomputed_tokens` of them are in
    the recompute form now. `written_tokens` are those of `rows` that join them. Under sliding
    windows, tokens count by the share of the layers' bytes that is kept of them.
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

    @property
    def offloaded_tokens(self) -> int:
        return sum(batch.offloaded_tokens for batch in self.batches)

    @property
    def present(self) -> tuple[int, ...]:
        """Tokens in the recompute form now, per batch."""
        return tuple(batch.recomputed_tokens for batch in self.batches)


@dataclass(frozen=True, slots=True)
class PassMeasured:
    """What a pass took: seconds each lane was busy (waiting left out) and bytes it moved.

    `recomputed` is what the pass has left in the recompute form per batch, None where that is what
    was decided.
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
