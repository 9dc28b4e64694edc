"""Philox4x32-10, the counter-based random generator of Salmon et al. (SC 2011), on tensors.

Noise is a function of (key, counter) alone: it depends on neither batch, order nor restart.
"""

from __future__ import annotations

import hashlib

import torch

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF


def stream_key(seed: int, request_id: str, sample: int) -> tuple[int, int]:
    """Two 32-bit words that name the noise of one sample of one request."""
    digest = hashlib.blake2b(f"{seed}\0{sample}\0{request_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def philox(
    counter: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    key: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ten rounds on 32-bit words held in int64 tensors of one shape (or broadcastable)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The 64-bit product wraps to a negative int64; shifting and masking give its true halves.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def gumbel(
    key: tuple[torch.Tensor, torch.Tensor], position: torch.Tensor, token: torch.Tensor
) -> torch.Tensor:
    """Standard Gumbel noise, float64, one per element of the broadcast arguments (int64).

    The argmax of logits plus this noise is a draw from their softmax.
    """
    zero = torch.zeros_like(position)
    high, low, _, _ = philox((position, token, zero, zero), key)
    # 52 random bits and a half, which a double holds exactly: off 0 and 1, where noise is infinite.
    uniform = ((high >> 6).double() * 2.0**26 + (low >> 6).double() + 0.5) * 2.0**-52
    return -torch.log(-torch.log(uniform))
