"""Times what a model's work really takes on a device: its layers, its attention, its head.

The rates of a probe say what the device can do; a layer takes longer than its products, and a
plan that tells the truth reckons with the layer.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from tightrun.core import Request
from tightrun.policies.hardware import WorkTimes
from tightrun.policies.shape import ModelShape
from tightrun.runtime.attention import AttentionKernel, AttentionSpec
from tightrun.runtime.attention_probe import AttentionProbe
from tightrun.runtime.batch import Batch
from tightrun.runtime.cold import sweeper
from tightrun.runtime.host_probe import host_seconds
from tightrun.runtime.model import CutModel, LayerCall
from tightrun.runtime.model_profile import kinds_of_layers
from tightrun.runtime.projection import batch_of_tokens
from tightrun.runtime.sampling import Sampler
from tightrun.runtime.sequence import Sequence
from tightrun.runtime.stopwatch import seconds_of, seconds_of_each, seconds_once

ROWS = (1, 4, 16, 64, 256, 1024, 2048)
LOGIT_ROWS = (1, 4, 16, 64, 256)
DECODE_ROWS = 16
# A point that takes longer is the last one: more rows take as many times longer.
SLOW_POINT_S = 0.2


def _nothing() -> None:
    """What surrounds the layers is there already."""


def itself(layer: int) -> int:
    """The layer's weights lie in one place only."""
    return layer


Lost = Callable[[Callable[[], object]], tuple[float, float]]


def _nothing_lost(_work: Callable[[], object]) -> tuple[float, float]:
    """No disk is read."""
    return 0.0, 0.0


@dataclass(frozen=True, slots=True)
class TimedModel:
    """A cut model that can be timed.

    `loaded(layer)` holds a layer's weights where it computes, as it will in work: with fused norms,
    and `packed` if its weights will be laid out beforehand. `elsewhere(layer)` is a layer of the
    same kind whose weights lie where they did not in the run before. After `surround` no layer is
    asked for any more, and what surrounds them is there in full: so that both need not be at once.
    """

    cut: CutModel
    shape: ModelShape
    dtype: torch.dtype
    device: torch.device
    kernel: AttentionKernel
    block_tokens: int
    loaded: Callable[[int], AbstractContextManager[None]]
    packed: bool
    surround: Callable[[], None] = _nothing
    elsewhere: Callable[[int], int] = itself


def probe_work(model: TimedModel, lost: Lost = _nothing_lost) -> WorkTimes:
    """Times one layer of the kind that most layers are; changes nothing of the model. `lost` tells
    what some computing and the reading of the disk lose beside each other."""
    layer = typical_layer(model)
    layers = model.shape.layers
    mean = sum(x.dense_parameters for x in layers) / len(layers)
    scale = mean / max(1, layers[layer].dense_parameters)
    asked: list[AttentionSpec] = []
    before = model.cut.answer_attention(partial(_left_out, asked))
    try:
        with torch.inference_mode():
            with model.loaded(layer):
                layer_s = _layer_seconds(model, layer)
                disk_takes, disk_loses = lost(_layer_run(model, layer, DECODE_ROWS))
            host_s = host_seconds(1, model.device)
            attention = AttentionProbe(
                model.shape, layers[layer], asked[0], model.kernel, model.block_tokens,
                model.dtype, model.device,
            )  # fmt: skip
            call_s = attention.call_s()
            decoded = attention.decode_bytes_per_s(call_s)
            prefilled = attention.prefill_flops_per_s(call_s)
            model.surround()
            return WorkTimes(
                layer_s=tuple((rows, scale * seconds) for rows, seconds in layer_s),
                head_s=tuple(_head_seconds(model, host_s)),
                attended_bytes_per_s=decoded,
                attended_flops_per_s=prefilled,
                batch_s=_prelude_seconds(model),
                pass_s=host_s,
                packed=model.packed,
                attention_s=call_s,
                disk_takes=disk_takes,
                disk_loses=disk_loses,
            )
    finally:
        model.cut.answer_attention(before)


def typical_layer(model: TimedModel) -> int:
    """The first layer of the kind that most of the layers are."""
    kinds = kinds_of_layers(model.cut)
    return kinds.index(Counter(kinds).most_common(1)[0][0])


def _left_out(
    asked: list[AttentionSpec],
    _call: LayerCall,
    _module: nn.Module,
    query: torch.Tensor,
    _key: torch.Tensor,
    value: torch.Tensor,
    spec: AttentionSpec,
) -> torch.Tensor:
    """Answers attention calls with zeros, and notes what they ask for."""
    if not asked:
        asked.append(spec)
    return query.new_zeros(query.shape[1], query.shape[0], value.shape[2])


def _layer_seconds(model: TimedModel, layer: int) -> list[tuple[int, float]]:
    works: list[Callable[[], None]] = []
    for rows in ROWS:
        run = _layer_run(model, layer, rows)
        run()
        works.append(run)
        if seconds_once(run, model.device) > SLOW_POINT_S:
            break
    return list(zip(ROWS, seconds_of_each(works, model.device), strict=False))


def _layer_run(model: TimedModel, layer: int, rows: int) -> Callable[[], None]:
    batch = _tokens(model, rows)
    model.cut.prelude(batch)
    first = batch.hidden

    def run() -> None:
        batch.hidden = first
        model.cut.run_layer(model.elsewhere(layer), batch)

    return run


def _head_seconds(model: TimedModel, host_s: float) -> list[tuple[int, float]]:
    """With what the host does for each sequence that gets a token, beyond the first."""
    sampler = Sampler(frozenset())
    works: list[Callable[[], None]] = []
    for rows in LOGIT_ROWS:
        hidden = torch.randn(rows, model.shape.hidden, device=model.device).to(model.dtype)
        sequences = [
            Sequence(Request(0, "probe", ""), 0, array("i", [0]), 1, 1) for _ in range(rows)
        ]

        def run(hidden: torch.Tensor = hidden, sequences: list[Sequence] = sequences) -> None:
            sampler.choose(model.cut.head(hidden), sequences)

        run()
        works.append(run)
        if seconds_once(run, model.device) > SLOW_POINT_S:
            break
    own_s = seconds_of_each(
        works, model.device, before=sweeper(model.device, model.shape.weight_bytes)
    )
    return [
        (rows, seconds + host_seconds(rows, model.device) - host_s)
        for rows, seconds in zip(LOGIT_ROWS, own_s, strict=False)
    ]


def _prelude_seconds(model: TimedModel) -> float:
    """Seconds of embedding a batch and of making its layers' arguments."""
    return seconds_of(partial(model.cut.prelude, _tokens(model, 64)), model.device)


def _tokens(model: TimedModel, rows: int) -> Batch:
    """Tokens of all kinds, at positions of all kinds."""
    index = torch.arange(rows, device=model.device)
    longest = max(1, min(model.shape.context, 2048))
    return batch_of_tokens(index * 7919 % model.shape.vocab, index % longest)
