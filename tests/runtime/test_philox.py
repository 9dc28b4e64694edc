"""Noise is a function of key and counter, the function Random123 publishes."""

from __future__ import annotations

import math

import pytest
import torch

from tightrun.runtime import philox as module
from tightrun.runtime.philox import gumbel, philox, stream_key

ONES = 0xFFFFFFFF


def words(*values: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(value) for value in values)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_known_answers_of_random123_come_out(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    got = philox(words(*counter), words(*key))  # type: ignore[arg-type]
    assert tuple(int(word) for word in got) == expected


def test_many_counters_at_once_are_as_one_by_one() -> None:
    counters = torch.arange(100)
    zero = torch.zeros_like(counters)
    key = words(7, 9)
    together = philox((counters, counters * 3, zero, zero), key)  # type: ignore[arg-type]
    for i in range(0, 100, 17):
        alone = philox(words(i, 3 * i, 0, 0), key)  # type: ignore[arg-type]
        assert [int(word[i]) for word in together] == [int(word) for word in alone]


def test_keys_differ_by_seed_by_request_and_by_sample() -> None:
    keys = {stream_key(s, r, n) for s in (0, 1, -1) for r in ("", "a", "0") for n in (0, 1)}
    assert len(keys) == 18
    assert stream_key(1, "a", 0) == stream_key(1, "a", 0)


def test_a_key_is_two_32_bit_words() -> None:
    assert all(0 <= word < 2**32 for word in stream_key(5, "row", 2))


def test_noise_has_the_mean_and_the_variance_of_gumbel() -> None:
    key = words(*stream_key(3, "row", 0))
    noise = gumbel(key, torch.arange(200)[:, None], torch.arange(500))  # type: ignore[arg-type]
    assert noise.dtype == torch.float64
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.04)


@pytest.mark.parametrize("bits", [0, ONES])
def test_noise_is_finite_at_both_ends(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def extreme(_counter: object, _key: object) -> tuple[torch.Tensor, ...]:
        return words(bits, bits, bits, bits)

    monkeypatch.setattr(module, "philox", extreme)
    noise = gumbel(words(0, 0), torch.tensor([0]), torch.tensor([0]))  # type: ignore[arg-type]
    assert -3.7 < float(noise) < 36.8
