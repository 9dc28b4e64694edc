"""Learns a model by running it: its shape, and whether the cut model gives the same logits.

Nothing is decided by a list of names: a tiny batch is run by the model itself and by the packed,
paged, chunked path, and both must agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tightrun.core import Request
from tightrun.policies.shape import LayerShape, ModelShape
from tightrun.runtime.attention import (
    NAME,
    AttentionKernel,
    AttentionSpec,
    TorchAttention,
    UnsupportedAttentionError,
    register,
)
from tightrun.runtime.batch import Segment, pack
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.layer_types import exact_context
from tightrun.runtime.model import CutModel, LayerCall, ModelRefusedError, find_layers
from tightrun.runtime.rope_sides import RopeSides, find_rope_sides
from tightrun.runtime.sequence import Sequence

PROBE_LENGTHS = (5, 9, 13, 16)
# Relative distance of logits; in 16 bits a router may choose another expert at a near tie.
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.15, torch.float16: 0.05}


@dataclass(slots=True)
class InspectedModel:
    """A model that is known to run exactly when cut; `notes` say under which restrictions."""

    cut: CutModel
    shape: ModelShape
    rope_sides: RopeSides
    dtype: torch.dtype
    notes: tuple[str, ...] = ()


def paged_attention(kernel: AttentionKernel) -> Any:
    """The attention handler of normal work: store new keys and values, attend over the cache."""

    def handle(
        call: LayerCall,
        _module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        spec: AttentionSpec,
    ) -> torch.Tensor:
        assert call.cache is not None
        assert call.batch is not None
        kernel.store(call.cache, key, value, call.batch)
        return kernel.attend(call.cache, query, call.batch, spec)

    return handle


def inspect_model(model: nn.Module, device: torch.device) -> InspectedModel:
    """Cut the model and prove it on a tiny batch.

    Raises ModelRefusedError, with the reason in a sentence, for models that keep a recurrent
    state, whose attention does not go through transformers' interface, or whose logits differ.
    """
    name = type(model).__name__
    config = model.config.get_text_config(decoder=True)  # type: ignore[union-attr, operator]
    _, _, layers = find_layers(model)
    prompts = probe_prompts(config.vocab_size, device)
    try:
        with torch.inference_mode():
            expected, tuples = _reference(model, layers, prompts)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ModelRefusedError(f"{name} fails on a tiny batch: {error}") from error

    register()
    model.set_attn_implementation(NAME)  # type: ignore[operator]
    cut = CutModel(model, paged_attention(TorchAttention()))
    cut.learn_return_types(tuples)
    try:
        with torch.inference_mode():
            whole = shape_of(cut, prompts[0], config)
            shape = replace(whole, context=exact_context(name, config, whole))
            sides = find_rope_sides(cut, config, device)
            dtype = next(p.dtype for p in layers.parameters() if p.is_floating_point())
            got = packed_logits(cut, shape, prompts, dtype, device)
    except UnsupportedAttentionError as error:
        raise ModelRefusedError(f"{name} cannot be run: {error}") from error
    except ModelRefusedError:
        raise
    except (TypeError, RuntimeError, AttributeError, ValueError, LookupError) as error:
        raise ModelRefusedError(f"{name} cannot be cut at its layers: {error}") from error
    compare_logits(name, expected, got, dtype)
    notes = []
    if shape.context < whole.context:
        notes.append(
            f"contexts end at {shape.context:,} tokens: up to there the chunked attention of "
            f"{name} is full attention, and longer chunks are not supported"
        )
    if sides.threshold is not None:
        notes.append(
            f"a row that may pass {sides.threshold:,} tokens has the rotary angles of long texts "
            "from its start, where `generate` would change them on the way"
        )
    return InspectedModel(cut, shape, sides, dtype, tuple(notes))


def probe_prompts(vocab: int, device: torch.device) -> list[torch.Tensor]:
    return [(torch.arange(n, device=device) * 7919 + 31 * n + 1) % vocab for n in PROBE_LENGTHS]


def _reference(
    model: nn.Module, layers: nn.ModuleList, prompts: list[torch.Tensor]
) -> tuple[torch.Tensor, list[bool]]:
    """Last-row logits `[prompts, vocab]` of the model as it came; which layers return tuples."""
    tuples = [False] * len(layers)

    def note(index: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            tuples[index] = isinstance(output, tuple)

        return hook

    handles = [x.register_forward_hook(note(i)) for i, x in enumerate(layers)]
    try:
        logits = [model(input_ids=p[None], use_cache=False).logits[0, -1] for p in prompts]
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(logits).float(), tuples


def shape_of(
    cut: CutModel,
    prompt: torch.Tensor,
    config: Any,
    before: Callable[[int], None] = lambda _layer: None,
) -> ModelShape:
    """Read widths off the attention calls themselves; `before` is told of each layer that is run.

    Raises ModelRefusedError.
    """
    seen: list[LayerShape] = []
    calls: Counter[int] = Counter()

    def note(
        call: LayerCall,
        _module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        spec: AttentionSpec,
    ) -> torch.Tensor:
        calls[call.layer] += 1
        layer = cut.layers[call.layer]
        seen.append(
            LayerShape(
                q_heads=query.shape[0],
                kv_heads=key.shape[0],
                key_dim=key.shape[2],
                value_dim=value.shape[2],
                dense_parameters=_dense_parameters(layer, config),
                weight_bytes=_bytes(layer),
                window=spec.window,
            )
        )
        return query.new_zeros(query.shape[1], query.shape[0], value.shape[2])

    batch = _bare_batch(prompt)
    cut.answer_attention(note)
    cut.prelude(batch)
    for index, layer in enumerate(cut.layers):
        before(index)
        cut.run_layer(index, batch)
        if calls[index] != 1:
            raise ModelRefusedError(
                f"{type(cut.model).__name__} cannot be run: layer {index} "
                f"({type(layer).__name__}) reached transformers' attention interface "
                f"{calls[index]} times instead of once; recurrent, hybrid and private "
                "attention layers are not supported"
            )
    cut.answer_attention(paged_attention(TorchAttention()))
    head = cut.model.get_output_embeddings()  # type: ignore[operator]
    matrices = [p for x in cut.layers for p in x.parameters() if p.dim() >= 2]
    assert batch.hidden is not None
    return ModelShape(
        layers=tuple(seen),
        hidden=batch.hidden.shape[-1],
        vocab=config.vocab_size,
        parameters=sum(p.numel() for p in cut.parameters()),
        weight_bytes=sum(p.numel() * p.element_size() for p in cut.parameters()),
        head_parameters=head.weight.numel() if head is not None else 0,
        element_bytes=matrices[0].element_size(),
        widest=max(max(p.shape[-2:]) for p in matrices),
        context=int(getattr(config, "max_position_embeddings", None) or 2**20),
    )


def _bare_batch(prompt: torch.Tensor) -> Any:
    """A batch of one prompt with an empty cache, for calls that only look at shapes."""
    shape = ModelShape((), 0, 0, 0, 0, 0, 0, 0, 0)
    cache = KVCache(shape, 1, 64, 1, 64, torch.float32, prompt.device)
    sequence = _sequence(prompt)
    cache.open(sequence)
    cache.grow(sequence, len(prompt))
    batch = pack([Segment(sequence, len(prompt))], cache, prompt.device)
    batch.cache = None
    return batch


def _sequence(prompt: torch.Tensor) -> Sequence:
    tokens = prompt.tolist()
    return Sequence(Request(0, "probe", ""), 0, tokens, len(tokens), 1)


def _dense_parameters(layer: nn.Module, config: Any) -> int:
    """Weights one token is multiplied with; stacked experts count by the share routed to."""
    experts = next(
        (getattr(config, n) for n in ("num_local_experts", "num_experts", "n_routed_experts")
         if getattr(config, n, None)), None,
    )  # fmt: skip
    chosen = getattr(config, "num_experts_per_tok", None) or 1
    total = 0
    for parameter in layer.parameters():
        if parameter.dim() == 3 and experts:
            total += parameter.numel() * chosen // experts
        elif parameter.dim() == 2:
            total += parameter.numel()
    return total


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def packed_logits(
    cut: CutModel,
    shape: ModelShape,
    prompts: list[torch.Tensor],
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor:
    """Last-row logits by the packed path: a ragged prefill with a chunk held back, then decode."""
    cache = KVCache(shape, len(prompts) * 4, 8, len(prompts), 32, dtype, device)
    sequences = [_sequence(p) for p in prompts]
    for sequence in sequences:
        cache.open(sequence)
        cache.grow(sequence, len(sequence.tokens))
    first = [Segment(s, len(s.tokens) - (2 if i == 2 else i % 2)) for i, s in enumerate(sequences)]
    logits: dict[int, torch.Tensor] = {}
    for segments in (first, None):
        segments = segments or [Segment(s, s.uncomputed) for s in sequences if s.uncomputed]
        batch = pack(segments, cache, device)
        cut.prelude(batch)
        for layer in range(len(cut.layers)):
            cut.run_layer(layer, batch)
        assert batch.hidden is not None
        for segment in segments:
            segment.sequence.computed += segment.tokens
        rows = cut.head(batch.hidden[0, batch.logit_rows])
        logits |= {id(s): row for s, row in zip(batch.logit_sequences, rows, strict=True)}
    return torch.stack([logits[id(s)] for s in sequences]).float()


def compare_logits(
    name: str, expected: torch.Tensor, got: torch.Tensor, dtype: torch.dtype
) -> None:
    spread = expected - expected.mean(-1, keepdim=True)
    distance = (got - expected).norm(dim=-1) / spread.norm(dim=-1).clamp_min(1e-12)
    worst = float(distance.median() if dtype != torch.float32 else distance.max())
    if not worst <= TOLERANCE[dtype]:
        raise ModelRefusedError(
            f"{name} cannot be run exactly: on a tiny batch its logits differ by {worst:.1%} "
            "from the model's own"
        )
