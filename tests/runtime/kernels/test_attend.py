"""The kernel attends like plain torch in float32, whatever the shape of batch, model and cache."""

import pytest
import torch

from tests.runtime.kernels.paged_case import PagedCase, Shape

DTYPES = [torch.float32, torch.bfloat16]
RAGGED = [(0, 1), (37, 1), (0, 70), (5, 3), (130, 50), (63, 1), (64, 1), (600, 1), (0, 17)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "heads", [(1, 1), (4, 4), (8, 4), (12, 4), (4, 1), (10, 2), (9, 1), (71, 1)]
)
def test_any_group_of_query_heads(kernels, dtype, heads):
    shape = Shape(q_heads=heads[0], kv_heads=heads[1], dtype=dtype)
    case = PagedCase.make(kernels, shape, RAGGED)
    case.assert_attends(kernels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "widths",
    [
        (8, None),
        (16, None),
        (24, None),
        (40, None),
        (80, None),
        (96, None),
        (128, None),
        (256, None),
        (192, 128),
        (72, 8),
        (32, 200),
    ],
)
def test_any_head_size(kernels, dtype, widths):
    shape = Shape(head_dim=widths[0], value_head_dim=widths[1], dtype=dtype)
    case = PagedCase.make(kernels, shape, RAGGED)
    case.assert_attends(kernels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_tokens", [1, 2, 4, 8, 32, 64, 128])
def test_any_block_size(kernels, dtype, block_tokens):
    case = PagedCase.make(kernels, Shape(block_tokens=block_tokens, dtype=dtype), RAGGED)
    case.assert_attends(kernels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 2, 16, 33, 64, 100, 1000])
def test_a_window_hides_older_keys(kernels, dtype, window):
    case = PagedCase.make(kernels, Shape(dtype=dtype), RAGGED)
    case.assert_attends(kernels, window=window)


def test_blocks_wholly_before_the_window_are_not_needed(kernels):
    case = PagedCase.make(kernels, Shape(), [(100, 1), (200, 20)])
    whole = case.attend(kernels, window=30)
    for row, context in zip(case.block_table, (100, 200), strict=True):
        row[: (context - 29) // 16] = -1
    assert torch.equal(case.attend(kernels, window=30), whole)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softcap(kernels, dtype):
    case = PagedCase.make(kernels, Shape(dtype=dtype), RAGGED)
    options = {"softcap": 3.0, "scaling": 0.5}
    case.assert_attends(kernels, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sinks_join_the_denominator_only(kernels, dtype):
    case = PagedCase.make(kernels, Shape(dtype=dtype), RAGGED)
    sinks = torch.linspace(-3, 12, 8)
    case.assert_attends(kernels, sinks=sinks)


def test_large_scores_do_not_overflow(kernels):
    case = PagedCase.make(kernels, Shape(), RAGGED, scale=10.0)
    torch.testing.assert_close(
        case.attend(kernels, scaling=1.0), case.expected(scaling=1.0), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [[(5000, 1)], [(3000, 40)], [(9000, 2), (1, 1)]])
def test_a_few_long_sequences_are_split_and_joined(kernels, dtype, lengths):
    case = PagedCase.make(kernels, Shape(block_tokens=64, dtype=dtype), lengths)
    sinks = torch.zeros(8)
    case.assert_attends(kernels, sinks=sinks)


def test_query_may_be_a_transposed_view(kernels):
    case = PagedCase.make(kernels, Shape(), RAGGED)
    plain = case.attend(kernels)
    case.q = case.q.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(case.attend(kernels), plain)


def test_both_sides_may_lie_in_one_tensor(kernels):
    case = PagedCase.make(kernels, Shape(), RAGGED)
    plain = case.attend(kernels)
    both = torch.stack(case.caches, dim=1)
    case.caches = both[:, 0], both[:, 1]
    assert torch.equal(case.attend(kernels), plain)


def test_rows_of_no_sequence_are_zero(kernels):
    case = PagedCase.make(kernels, Shape(), [(4, 3), (9, 1), (0, 8)])
    plain = case.attend(kernels)
    case.q_len[1] = 0
    out = case.attend(kernels)
    assert torch.equal(out[3], torch.zeros_like(out[3]))
    assert torch.equal(out[[0, 1, 2, *range(4, 12)]], plain[[0, 1, 2, *range(4, 12)]])


def test_a_decode_row_does_not_depend_on_the_batch_or_the_threads(kernels):
    together = PagedCase.make(kernels, Shape(), [(1500, 1), (70, 1), (40, 30)])
    out = together.attend(kernels)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = PagedCase(**vars(together))
        alone.block_table = together.block_table[:1]
        alone.q_start, alone.q_len, alone.context_len = (
            x[:1] for x in (together.q_start, together.q_len, together.context_len)
        )
        assert torch.equal(alone.attend(kernels)[0], out[0])
    finally:
        torch.set_num_threads(threads)


def test_a_nan_in_the_context_is_not_hidden(kernels):
    case = PagedCase.make(kernels, Shape(), [(40, 1), (40, 8)])
    for side in case.caches:
        side[:] = float("nan")
    assert case.attend(kernels).isnan().all()


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("q_start", 5, "outside q"),
        ("context_len", 40, "outside the cache"),
        ("q_len", -1, "length"),
    ],
)
def test_rows_and_blocks_out_of_bounds_are_refused(kernels, field, value, fault):
    case = PagedCase.make(kernels, Shape(), [(9, 4)])
    getattr(case, field)[0] = value
    with pytest.raises(AssertionError, match=fault):
        case.attend(kernels)
