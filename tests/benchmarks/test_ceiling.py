"""The ceiling is probed with the model's own matrices, in every way this CPU multiplies."""

from __future__ import annotations

import torch

from benchmarks.ceiling import measure_shape, products, shape


def test_a_shape_is_written_inputs_by_outputs() -> None:
    assert shape("1024x256") == (1024, 256)


def test_every_way_to_multiply_gives_the_same_product() -> None:
    x = torch.randn(16, 64, dtype=torch.bfloat16)
    weight = torch.randn(32, 64, dtype=torch.bfloat16)
    want = (x.float() @ weight.float().T).bfloat16()
    for product in products(x, weight).values():
        torch.testing.assert_close(product().bfloat16(), want, rtol=0.02, atol=0.1)


def test_each_number_of_rows_has_a_rate_for_each_way() -> None:
    points = list(measure_shape(32, 16, (2, 4), seconds=0.0))
    kinds = set(products(torch.zeros(2, 32).bfloat16(), torch.zeros(16, 32).bfloat16()))
    assert {(point["rows"], point["kind"]) for point in points} == {
        (rows, kind) for rows in (2, 4) for kind in kinds
    }
    assert all(point["flops_per_s"] > 0 for point in points)
