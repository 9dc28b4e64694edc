"""Tiny cut models, and passes over them in which older tokens are projected again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from tests.parity.families import CONTEXT, VOCAB
from tightrun.runtime.attention import AttentionSpec
from tightrun.runtime.batch import Batch
from tightrun.runtime.inspection import inspect_model
from tightrun.runtime.model import CutModel, LayerCall
from tightrun.runtime.projection import Projection, batch_of_tokens
from tightrun.runtime.projection_trial import find_projection

CPU = torch.device("cpu")


def cut_tiny(
    model_type: str, sizes: dict[str, Any], dtype: torch.dtype = torch.float32
) -> CutModel:
    """A model of random weights, large enough that every one of them matters."""
    torch.manual_seed(1)
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(AutoConfig.for_model(model_type, **sizes), dtype=dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, 1.5 * parameter.shape[-1] ** -0.5)
            else:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    return inspect_model(model, CPU).cut


def projection_of(cut: CutModel) -> Projection:
    projection, reason = find_projection(cut, CPU)
    assert projection is not None, reason
    return projection


def tokens_of(sequences: list[range], padding_at: int | None = None, seed: int = 5) -> Batch:
    """A batch of random tokens at these positions; one more row of padding if a place is given."""
    places = [at for positions in sequences for at in positions]
    places += [] if padding_at is None else [padding_at]
    assert max(places) < CONTEXT
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCAB, (len(places),), generator=generator)
    return batch_of_tokens(ids, torch.tensor(places), padding=int(padding_at is not None))


def some_of(batch: Batch, rows: torch.Tensor, padding_at: int | None = None) -> Batch:
    """Tokens of a batch in another order."""
    ids, positions = batch.input_ids[0, rows], batch.positions[0, rows]
    if padding_at is not None:
        ids = functional.pad(ids, (0, 1))
        positions = functional.pad(positions, (0, 1), value=padding_at)
    return batch_of_tokens(ids, positions, padding=int(padding_at is not None))


@dataclass
class SelfContained:
    """Answers attention calls without a cache: each run of rows is a text of its own.

    `keys` and `values` of every layer are noted.
    """

    lengths: list[int]
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)

    def __call__(
        self,
        call: LayerCall,
        _module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        spec: AttentionSpec,
    ) -> torch.Tensor:
        self.keys[call.layer], self.values[call.layer] = key.clone(), value.clone()
        parts = zip(*(torch.split(x, self.lengths, 1) for x in (query, key, value)), strict=True)
        out = [
            functional.scaled_dot_product_attention(
                q[None], k[None], v[None], is_causal=True, scale=spec.scaling, enable_gqa=True
            )[0]
            for q, k, v in parts
        ]
        return torch.cat(out, 1).transpose(0, 1)


def run_layers(cut: CutModel, batch: Batch, answer: SelfContained) -> torch.Tensor:
    """Take the batch through all layers; its final hidden states `[1, tokens, hidden]`."""
    before = cut.answer_attention(answer)
    cut.prelude(batch)
    for layer in range(len(cut.layers)):
        cut.run_layer(layer, batch)
    cut.answer_attention(before)
    assert batch.hidden is not None
    return batch.hidden


def distance(got: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest element."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    got, expected = got.float(), expected.float()
    return float((got - expected).abs().max() / expected.abs().max())
