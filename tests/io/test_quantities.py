"""Quantities as people write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrun.io import quantities as q


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GiB", 24 * 2**30),
        ("400MiB", 400 * 2**20),
        ("8GB", 8 * 10**9),
        ("0.1GB", 100_000_000),
        ("1.5 GiB", 3 * 2**29),
        (".5KiB", 512),
        ("24gib", 24 * 2**30),
        ("7B", 7),
        ("0B", 0),
        (0, 0),
        (8 * 2**30, 8 * 2**30),
    ],
)
def test_a_size_is_bytes(text: object, size: int) -> None:
    assert q.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("24", "has no unit; write a size such as 24GiB"),
        (24, "24 has no unit; write a size such as 24GiB"),
        ("24G", "write GiB (1024) or GB (1000)"),
        ("24Gb", "would be bits; write GB"),
        ("24XB", "has no unit we know"),
        ("-1GiB", "is not a size such as"),
        ("lots", "is not a size such as"),
        ("99999999PiB", "larger than any memory"),
        (True, "is not a size such as"),
        (None, "nothing is not a size such as"),
        ("1" * 500, "is not a size such as"),
        ("٣GiB", "is not a size such as"),
    ],
)
def test_a_size_that_is_none_says_what_is_one(text: object, remedy: str) -> None:
    with pytest.raises(ValueError, match=re.escape(remedy)):
        q.parse_size(text)


@settings(deadline=None)
@given(st.integers(0, 2**62))
def test_sizes_read_back_as_they_were_written(size: int) -> None:
    assert q.parse_size(q.format_size(size)) == size


def test_a_size_is_written_in_the_largest_whole_unit() -> None:
    assert [q.format_size(n) for n in (24 * 2**30, 5 * 10**8, 1025)] == ["24GiB", "500MB", "1025B"]


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("90%", q.Amount(share=0.9)),
        (0.9, q.Amount(share=0.9)),
        ("12.5 %", q.Amount(share=0.125)),
        ("24GiB", q.Amount(bytes=24 * 2**30)),
        (0, q.Amount(bytes=0)),
    ],
)
def test_an_amount_is_a_share_or_a_size(text: object, amount: q.Amount) -> None:
    assert q.parse_amount(text) == amount


@pytest.mark.parametrize("text", ["101%", 1.5, -0.1, float("nan"), 90, "90", "-5%", [], {}])
def test_an_amount_that_is_none_names_both_forms(text: object) -> None:
    with pytest.raises(ValueError, match="share such as 90%, or a size such as 24GiB"):
        q.parse_amount(text)


def test_an_amount_is_taken_of_a_capacity() -> None:
    assert q.Amount(share=0.9).of(1000) == 900
    assert q.Amount(bytes=77).of(1000) == 77


def test_an_amount_has_its_share_as_a_float_and_its_bytes_as_an_int() -> None:
    assert isinstance(q.Amount(share=1.0).value, float)
    assert isinstance(q.Amount(bytes=77).value, int)


@settings(deadline=None)
@given(st.floats(0, 1))
def test_shares_read_back_as_they_were_written(share: float) -> None:
    text = q.format_share(share)
    if len(text) < 24:
        assert q.parse_share(text) == share


@pytest.mark.parametrize(
    ("limit", "failed", "allowed"),
    [("5%", 50, True), ("5%", 51, False), (100, 100, True), (100, 101, False), (0, 1, False)],
)
def test_a_tolerance_says_whether_so_many_may_fail(
    limit: object, failed: int, allowed: bool
) -> None:
    assert q.parse_tolerance(limit).allows(failed, 1000) is allowed


@pytest.mark.parametrize(
    ("text", "rate"),
    [("500MB/s", 5e8), ("25 GB/s", 25e9), ("1GiB/s", 2.0**30), ("500MBps", 5e8)],
)
def test_a_rate_is_bytes_per_second(text: str, rate: float) -> None:
    assert q.parse_rate(text) == rate


@pytest.mark.parametrize("text", ["500MB", "500", 500, "10Gb/s", "0MB/s", "fast", None, True])
def test_a_rate_that_is_none_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"write|such as 500MB/s"):
        q.parse_rate(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("30TFLOP/s", 3e13), ("30 TFLOPS", 3e13), ("800GFLOP/s", 8e11), ("1.5PFLOPs", 1.5e15)],
)
def test_a_rate_of_computing_is_operations_per_second(text: str, rate: float) -> None:
    assert q.parse_flop_rate(text) == rate


@pytest.mark.parametrize("text", ["30", 30, "30TB/s", "0TFLOP/s", "", None])
def test_a_rate_of_computing_that_is_none_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="30TFLOP/s"):
        q.parse_flop_rate(text)


@settings(deadline=None)
@given(st.floats(1e-3, 1e20))
def test_rates_read_back_as_they_were_written(rate: float) -> None:
    assert q.parse_rate(q.format_rate(rate)) == rate
    assert q.parse_flop_rate(q.format_flop_rate(rate)) == rate


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3h", 10800),
        ("90m", 5400),
        ("1h30m", 5400),
        ("1h 30min", 5400),
        ("1.5h", 5400),
        ("2d", 172800),
        ("45s", 45),
        ("12:00:00", 43200),
        ("1-12:00:00", 129600),
    ],
)
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert q.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", [90, "90", "90:00", "30m1h", "1h1h", "0s", "", "3 hours ago", "-1h", None, False]
)
def test_a_duration_that_is_none_says_what_is_one(text: object) -> None:
    with pytest.raises(ValueError, match="such as 3h, 90m, 1h30m"):
        q.parse_duration(text)


@settings(deadline=None)
@given(st.one_of(st.integers(1, 10**9).map(float), st.floats(1e-3, 1e9)))
def test_durations_read_back_as_they_were_written(seconds: float) -> None:
    assert q.parse_duration(q.format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "count"), [(5, 5), (1e4, 10_000), ("10_000", 10_000), ("1,000,000", 10**6), ("7", 7)]
)
def test_a_count_is_a_whole_number(text: object, count: int) -> None:
    result = q.parse_count(text)
    assert (result, type(result)) == (count, int)


@pytest.mark.parametrize("text", [True, 1.5, "8k", "1_0", "10,00", "", None, [], float("inf")])
def test_a_count_that_is_none_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a whole number"):
        q.parse_count(text)
