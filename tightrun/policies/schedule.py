"""How long a pass takes by its schedule: what of computing, links and disk runs beside each other.

The three are those of the loop: `sync` does all in order; `static` (FlexGen, arXiv 2303.06865,
algorithm 1) sends all of a layer's weights behind the first batch and waits after each; `adaptive`
keeps the link busy over the whole pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Schedule = Literal["adaptive", "static", "sync"]


def schedule_of(policy: str) -> Schedule:
    """The schedule that a policy's passes run by; `simple` waits as much as `sync`."""
    schedules: dict[str, Schedule] = {
        "adaptive": "adaptive",
        "static": "static",
        "sync": "sync",
        "simple": "sync",
    }
    return schedules[policy]


class BatchSeconds(NamedTuple):
    """One batch of a pass: its computing in all layers and in the head, and its context's way in
    and out over all layers."""

    layers_s: float
    head_s: float
    fetch_s: float = 0.0
    store_s: float = 0.0


class Streaming(NamedTuple):
    """The weights of a pass: seconds on the link that fills the slots, and on the disk behind it.

    `fills_ahead` are slots that fill while a layer computes. Where weights come straight
    `from_disk` into the slots, the disk is that link, and nothing is behind it.
    """

    layers: int
    streamed: int
    weights_s: float = 0.0
    disk_s: float = 0.0
    fills_ahead: int = 1
    from_disk: bool = False


def elapsed_s(
    schedule: Schedule,
    batches: Sequence[BatchSeconds],
    streaming: Streaming,
    *,
    between_s: float = 0.0,
    both_ways_s: float = 0.0,
    stores_beside: bool = False,
) -> float:
    """Seconds of a pass of these batches.

    `between_s` is what the host does between two passes, `both_ways_s` the least time of all that
    crosses the link in both directions together. With `stores_beside`, `static` does not wait
    for what a batch has written, but for what the batch before it has, as FlexGen itself.
    """
    if schedule == "sync":
        one_s = streaming.weights_s + streaming.disk_s
        return between_s + sum(one_s + sum(batch) for batch in batches)
    if schedule == "static":
        static_s = _static_s(batches, streaming, stores_beside=stores_beside)
        return max(between_s + static_s, streaming.disk_s, both_ways_s)
    return max(_adaptive_s(batches, streaming, between_s), streaming.disk_s, both_ways_s)


def _static_s(
    batches: Sequence[BatchSeconds], streaming: Streaming, *, stores_beside: bool
) -> float:
    """Per layer `max(c, Tw + kv) + (K - 1) max(c, kv)`, and the first fetch of the pass, which
    waits for nothing; nothing is fetched beside the last step."""
    count, last = streaming.layers, len(batches) - 1
    total = batches[0].fetch_s / count
    for index, (layers_s, head_s, _, store_s) in enumerate(batches):
        following_s = batches[(index + 1) % len(batches)].fetch_s
        own_s = max(layers_s, store_s) if stores_beside else layers_s + store_s
        beside_s = max(own_s, following_s)
        total += beside_s + head_s
        if index == last:
            total -= (beside_s - own_s) / count
        if index == 0 and streaming.streamed:
            weights_s = streaming.weights_s / streaming.streamed
            first_s = max(own_s / count, weights_s + following_s / count) - beside_s / count
            total += streaming.streamed * first_s
    return total


def _adaptive_s(batches: Sequence[BatchSeconds], streaming: Streaming, between_s: float) -> float:
    """The busier of computing and link, and what neither can do beside the other.

    Computing waits for the first context of a pass, which is decided just before. The link waits
    while the last batch and the heads compute, for contexts of the next pass are not known yet,
    and has only as many weights to bring as there are slots to fill.
    """
    all_layers_s, all_heads_s, fetches_s, stores_s = map(sum, zip(*batches, strict=True))
    count, weights_s = streaming.layers, streaming.weights_s
    computing_s = all_layers_s + all_heads_s + between_s + batches[0].fetch_s / count
    tail_s = all_heads_s + between_s
    if fetches_s:
        tail_s += batches[-1].layers_s / count
    ahead_s = streaming.fills_ahead * weights_s / max(1, streaming.streamed)
    link_s = 0.0
    if weights_s or fetches_s:
        link_s = weights_s + fetches_s + max(0.0, tail_s - min(weights_s, ahead_s))
    return max(computing_s, link_s, stores_s)
