"""Numbers as a person reads them."""

from __future__ import annotations

import pytest

from tightrun.cli import units


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1024, "1.0 KiB"),
        (999 * 1024, "999 KiB"),
        (1000 * 1024, "1.0 MiB"),
        (640 * 2**20, "640 MiB"),
        (1.2 * 2**30, "1.2 GiB"),
        (99.96 * 2**30, "100 GiB"),
        (3 * 2**60, "3072 PiB"),
    ],
)
def test_sizes_have_a_binary_unit_and_three_digits(number: float, text: str) -> None:
    assert units.size(number) == text


def test_a_size_against_its_budget_is_in_the_unit_of_the_budget() -> None:
    assert units.size_of(300 * 2**20, 12.4 * 2**30) == "0.3 of 12.4 GiB"


def test_a_size_without_a_budget_stands_alone() -> None:
    assert units.size_of(300 * 2**20, 0) == "300 MiB"


@pytest.mark.parametrize(
    ("rate", "text"), [(3412.2, "3,412 tok/s"), (2.44, "2.4 tok/s"), (0, "0 tok/s")]
)
def test_rates_keep_a_decimal_only_when_slow(rate: float, text: str) -> None:
    assert units.rate(rate) == text


@pytest.mark.parametrize(
    ("flops", "text"),
    [(18e9, "18 GFLOP/s"), (0.35e12, "350 GFLOP/s"), (1.254e12, "1.25 TFLOP/s"), (12, "12 FLOP/s")],
)
def test_flops_have_a_decimal_prefix(flops: float, text: str) -> None:
    assert units.flops(flops) == text


@pytest.mark.parametrize(
    ("bandwidth", "text"),
    [
        (25.13e9, "25.1 GB/s"),
        (4.8e8, "0.48 GB/s"),
        (6.4e6, "6.40 MB/s"),
        (3.2e3, "3.20 kB/s"),
        (12, "12 B/s"),
    ],
)
def test_bandwidths_have_decimal_units(bandwidth: float, text: str) -> None:
    assert units.bandwidth(bandwidth) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (1, "100 %"), (0.996, "99.6 %"), (0.9999, "99.9 %")]
)
def test_only_the_whole_is_called_100_percent(share: float, text: str) -> None:
    assert units.percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.21, "0.2 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3 * 3600 + 12 * 60, "3 h 12 min"),
        (52 * 3600, "2 d 4 h"),
        (3338 * 86400, "9.1 years"),
    ],
)
def test_durations_name_two_units_at_the_most(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1, "1 s"), (11.2, "12 s"), (130, "3 min"), (3600, "1 h 00 min"), (7750, "2 h 10 min")],
)
def test_a_time_left_is_rounded_up_and_coarse(seconds: float, text: str) -> None:
    assert units.time_left(seconds) == text


def test_one_row_is_not_rows() -> None:
    assert (units.rows(1), units.rows(2000)) == ("1 row", "2,000 rows")
    assert (units.files(1), units.files(12)) == ("1 file", "12 files")


@pytest.mark.parametrize(("ratio", "text"), [(0.97, "-3 %"), (1.124, "+12 %"), (1.0, "+0 %")])
def test_a_change_has_its_sign(ratio: float, text: str) -> None:
    assert units.change(ratio) == text
