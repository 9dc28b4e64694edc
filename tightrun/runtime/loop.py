"""The block loop: every batch of a block through every stage, stage by stage.

A stage is a layer, or the head behind the last one. All loops here do the same work on the same
batches and give the same bits; they differ in what happens while a batch computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tightrun.runtime.batch import Batch
from tightrun.runtime.stages import Stages
from tightrun.runtime.weights import Weights

Loop = Callable[[Stages, Weights, Sequence[Batch]], None]


def loop_overlapped(stages: Stages, weights: Weights, block: Sequence[Batch]) -> None:
    """Weights arrive in slices, one behind each batch; contexts a batch ahead, or two."""
    following = stages.following(block)
    for _ in range(stages.ahead):
        stages.fetch(*next(following))
    for stage in range(stages.count):
        weights.wait(stage)
        for batch in block:
            weights.send_slice(behind=batch.index)
            stages.fetch(*next(following))
            stages.run(stage, batch)
            stages.store(stage, batch)


def loop_simple(stages: Stages, weights: Weights, block: Sequence[Batch]) -> None:
    """In order, nothing beside anything: the readable specification and the oracle."""
    for stage in range(stages.count):
        weights.load(stage)
        for batch in block:
            stages.fetch(stage, batch)
            stages.run(stage, batch)
            stages.store(stage, batch)
            stages.settle()
        weights.drop(stage)


def loop_static(stages: Stages, weights: Weights, block: Sequence[Batch]) -> None:
    """FlexGen (arXiv 2303.06865, algorithm 1): all of the next layer's weights behind the first
    batch, the next batch's context behind each, and after each batch everything is waited for."""
    following = stages.following(block)
    stages.fetch(*next(following))
    for stage in range(stages.count):
        weights.wait(stage)
        for batch in block:
            sent = weights.send_next() if batch is block[0] else ()
            stages.fetch(*next(following))
            stages.run(stage, batch)
            stages.store(stage, batch)
            stages.settle(*sent)


def loop_sync(stages: Stages, weights: Weights, block: Sequence[Batch]) -> None:
    """What layer-wise offloading without a schedule does: each batch alone through the model, each
    layer's weights loaded for it and dropped."""
    for batch in block:
        for stage in range(stages.count):
            weights.load(stage)
            stages.fetch(stage, batch)
            stages.run(stage, batch)
            stages.store(stage, batch)
            stages.settle()
            weights.drop(stage)


LOOPS: dict[str, Loop] = {
    "adaptive": loop_overlapped,
    "static": loop_static,
    "sync": loop_sync,
    "simple": loop_simple,
}
