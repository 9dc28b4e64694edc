"""New rows land in their slots and nowhere else."""

import pytest
import torch


def scatter(k, cache, slots):
    expected = cache.clone()
    for token, slot in enumerate(slots.tolist()):
        if slot >= 0:
            expected[slot // cache.shape[2], :, slot % cache.shape[2]] = k[0, :, token]
    return expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block_tokens", [1, 16, 64])
@pytest.mark.parametrize("transposed", [False, True])
def test_rows_land_in_their_slots(kernels, dtype, block_tokens, transposed):
    tokens, heads, widths = 100, 3, (48, 24)
    sizes = [(1, tokens, heads, w) if transposed else (1, heads, tokens, w) for w in widths]
    k, v = (torch.randn(size).to(dtype) for size in sizes)
    if transposed:
        k, v = k.transpose(1, 2), v.transpose(1, 2)
    blocks = 256 // block_tokens
    caches = [torch.zeros(blocks, heads, block_tokens, w, dtype=dtype) for w in widths]
    slots = torch.randperm(256)[:tokens]
    slots[::7] = -1
    expected = [scatter(x, cache, slots) for x, cache in zip((k, v), caches, strict=True)]
    kernels.write_kv(k, v, *caches, slots)
    assert torch.equal(caches[0], expected[0])
    assert torch.equal(caches[1], expected[1])


def test_a_cache_may_hold_both_sides_in_one_tensor(kernels):
    k, v = torch.randn(2, 1, 2, 5, 16)
    cache = torch.zeros(4, 2, 2, 8, 16)
    kernels.write_kv(k, v, cache[:, 0], cache[:, 1], torch.arange(10, 15))
    assert torch.equal(cache[1, 0, :, 2:7], k[0])
    assert torch.equal(cache[1, 1, :, 2:7], v[0])
    assert cache.count_nonzero() == k.numel() + v.numel()


@pytest.mark.parametrize("slot", [-2, 32])
def test_a_slot_out_of_bounds_is_refused(kernels, slot):
    k, v = torch.randn(2, 1, 2, 1, 16)
    cache = torch.zeros(4, 2, 2, 8, 16)
    with pytest.raises(AssertionError, match="outside the cache"):
        kernels.write_kv(k, v, cache[:, 0], cache[:, 1], torch.tensor([slot]))
