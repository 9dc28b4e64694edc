"""What a model is, in numbers: bytes and FLOPs per layer and per token."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One decoder layer as its attention call sees it.

    `key_width` and `value_width` are elements per token over all KV heads; `dense_parameters`
    are the weights one token is multiplied with (of a mixture of experts, the routed ones only).
    `window` is the sliding window in tokens, None where the layer sees everything.
    """

    q_heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    dense_parameters: int
    weight_bytes: int
    window: int | None = None

    @property
    def key_width(self) -> int:
        return self.kv_heads * self.key_dim

    @property
    def value_width(self) -> int:
        return self.kv_heads * self.value_dim


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A whole decoder. `element_bytes` is the size of one weight and of one KV element."""

    layers: tuple[LayerShape, ...]
    hidden: int
    vocab: int
    parameters: int
    weight_bytes: int
    head_parameters: int
    element_bytes: int
    widest: int
    context: int

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes one token's keys and values take over all layers."""
        return sum(x.key_width + x.value_width for x in self.layers) * self.element_bytes

    def kv_block_bytes(self, block_tokens: int, element_bytes: int | None = None) -> int:
        """Bytes of a block of one layer's keys and values; the widest layer's for all of them."""
        widest = max((x.key_width + x.value_width for x in self.layers), default=0)
        return -(-widest * (element_bytes or self.element_bytes) * block_tokens // 64) * 64

    @property
    def dense_flops_per_token(self) -> float:
        """FLOPs of one token through the dense parts of every layer, without the head."""
        return 2.0 * sum(x.dense_parameters for x in self.layers)

    @property
    def head_flops_per_row(self) -> float:
        """FLOPs of the logits of one row."""
        return 2.0 * self.head_parameters

    def attention_flops(self, query_tokens: int, key_tokens: int) -> float:
        """FLOPs of `query_tokens` attending to `key_tokens` each, over all layers."""
        width = sum(x.q_heads * (x.key_dim + x.value_dim) for x in self.layers)
        return 2.0 * width * query_tokens * key_tokens

    @property
    def has_windows(self) -> bool:
        """Whether a layer sees less than the whole context."""
        return any(layer.window for layer in self.layers)

    def seen_share(self, context: float) -> float:
        """The share of a context of so many tokens that a mean layer sees through its window."""
        if context <= 0 or not self.layers:
            return 1.0
        seen = sum(min(context, layer.window or context) for layer in self.layers)
        return seen / (context * len(self.layers))
