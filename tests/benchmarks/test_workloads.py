"""Lengths are those of the workload that they are named after, and the same for a seed."""

from __future__ import annotations

from statistics import mean

import pytest

from benchmarks.workloads import FIXED, SHAREGPT


def test_rows_of_the_fixed_workload_are_alike() -> None:
    assert FIXED.rows(3, seed=0) == [(512, 32)] * 3
    assert FIXED.longest == 544


def test_sharegpt_like_rows_have_its_means_and_no_row_is_too_long() -> None:
    rows = SHAREGPT.rows(20_000, seed=0)
    assert mean(prompt for prompt, _ in rows) == pytest.approx(344, rel=0.06)
    assert mean(output for _, output in rows) == pytest.approx(237, rel=0.06)
    assert min(min(row) for row in rows) >= 1
    assert max(prompt + output for prompt, output in rows) <= SHAREGPT.longest


def test_lengths_are_the_same_for_a_seed_and_others_for_another() -> None:
    assert SHAREGPT.rows(9, seed=1) == SHAREGPT.rows(9, seed=1)
    assert SHAREGPT.rows(9, seed=1) != SHAREGPT.rows(9, seed=2)
