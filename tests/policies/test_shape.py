"""Bytes and FLOPs of a model, by hand."""

from __future__ import annotations

from tightrun.policies.shape import LayerShape, ModelShape

WIDE = LayerShape(8, 2, 64, 32, dense_parameters=1000, weight_bytes=4000)
NARROW = LayerShape(8, 1, 64, 64, dense_parameters=500, weight_bytes=2000, window=16)
SHAPE = ModelShape((WIDE, NARROW), 512, 1000, 513_500, 1_027_000, 512_000, 2, 2048, 4096)


def test_widths_count_the_kv_heads() -> None:
    assert (WIDE.key_width, WIDE.value_width) == (128, 64)


def test_kv_bytes_add_up_over_layers_of_different_widths() -> None:
    assert SHAPE.kv_bytes_per_token == (128 + 64 + 64 + 64) * 2


def test_a_parameter_is_a_product_and_a_sum_for_every_token() -> None:
    assert SHAPE.dense_flops_per_token == 2 * 1500
    assert SHAPE.head_flops_per_row == 2 * 512_000


def test_attention_multiplies_with_keys_and_values() -> None:
    width = 8 * (64 + 32) + 8 * (64 + 64)
    assert SHAPE.attention_flops(3, 100) == 2 * width * 3 * 100
