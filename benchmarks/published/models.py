"""The shapes of the models that were measured, from their published configurations."""

from __future__ import annotations

from tightrun.policies.shape import LayerShape, ModelShape


def _opt(layers: int, hidden: int, heads: int) -> ModelShape:
    """OPT (arXiv 2205.01068): plain multi-head attention, a feed-forward part four times as wide,
    tied embeddings, float16."""
    dense = 12 * hidden * hidden
    size = hidden // heads
    layer = LayerShape(heads, heads, size, size, dense, 2 * dense)
    vocab, context = 50_272, 2048
    parameters = layers * dense + vocab * hidden
    return ModelShape(
        (layer,) * layers,
        hidden,
        vocab,
        parameters,
        2 * parameters,
        vocab * hidden,
        2,
        4 * hidden,
        context,
    )


OPT_6_7B = _opt(32, 4096, 32)
OPT_13B = _opt(40, 5120, 40)
OPT_30B = _opt(48, 7168, 56)
OPT_66B = _opt(64, 9216, 72)
OPT_175B = _opt(96, 12_288, 96)


def _mixtral() -> ModelShape:
    """Mixtral 8x7B (arXiv 2401.04088): 8 experts of which each token takes 2, bfloat16."""
    hidden, heads, kv_heads, size, wide, layers, vocab = 4096, 32, 8, 128, 14_336, 32, 32_000
    attention = hidden * size * (2 * heads + 2 * kv_heads)
    expert = 3 * hidden * wide
    stored = attention + 8 * expert
    layer = LayerShape(heads, kv_heads, size, size, attention + 2 * expert, 2 * stored)
    parameters = layers * stored + 2 * vocab * hidden
    return ModelShape(
        (layer,) * layers,
        hidden,
        vocab,
        parameters,
        2 * parameters,
        vocab * hidden,
        2,
        wide,
        32_768,
    )


MIXTRAL_8X7B = _mixtral()
