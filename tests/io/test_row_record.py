"""A finished row as a record: what was written reads back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings

from tests.io.finished_rows import bad_row, completions, good_row
from tightrun.core import ERROR_CODES, Completion, RowError, TokenLogprob
from tightrun.io.row_record import (
    GOOD,
    Finished,
    decode_row,
    encode_row,
    error_code,
    summary_of,
)


@settings(deadline=None)
@given(completions(row=3))
def test_a_finished_row_reads_back_as_it_was(row: Completion) -> None:
    assert decode_row(encode_row(Finished(row, 12))) == Finished(row, 12)


def test_a_logprob_that_is_not_finite_reads_back_as_nan() -> None:
    token = TokenLogprob(1, "a", -math.inf, ((2, "b", math.nan),))
    row = good_row(0, logprobs=(token,))
    read = decode_row(encode_row(Finished(row, 0))).completion.samples[0].logprobs
    assert read is not None
    assert math.isnan(read[0].logprob)
    assert math.isnan(read[0].top[0][2])


def test_a_text_that_is_not_unicode_is_mended_not_lost() -> None:
    row = Completion(0, "file-\udcff", error=RowError("bad_row", "pair \ud83d\ude00"))
    read = decode_row(encode_row(Finished(row, 0))).completion
    assert read.id == "file-\N{REPLACEMENT CHARACTER}"
    assert read.error == RowError("bad_row", "pair \N{GRINNING FACE}")


@pytest.mark.parametrize("code", ERROR_CODES)
def test_which_row_failed_and_how_is_known_without_reading_all_of_it(code: str) -> None:
    row, result = summary_of(encode_row(Finished(bad_row(7, code), 0)))
    assert (row, error_code(result)) == (7, code)


def test_a_good_row_is_known_as_such() -> None:
    assert summary_of(encode_row(Finished(good_row(2**40), 0))) == (2**40, GOOD)
