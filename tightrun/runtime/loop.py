"""The block loop: every batch of a block through every stage, stage by stage."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tightrun.runtime.batch import Batch
from tightrun.runtime.model import CutModel
from tightrun.runtime.weights import ResidentWeights

Sample = Callable[[Batch, torch.Tensor], None]


def run_pass(model: CutModel, weights: ResidentWeights, block: list[Batch], sample: Sample) -> None:
    """Take a block once over all layers and the head; `sample` gets each batch's logits.

    Logits `[rows, vocab]` are made one batch at a time, so that only one batch's are alive.
    """
    for batch in block:
        model.prelude(batch)
    for layer in range(len(model.layers)):
        weights.wait(layer)
        for batch in block:
            weights.send_slice(behind=batch)
            model.run_layer(layer, batch)
    for batch in block:
        hidden, batch.hidden, batch.layer_calls = batch.hidden, None, []
        assert hidden is not None
        if batch.logit_sequences:
            sample(batch, model.head(hidden[0, batch.logit_rows]))
