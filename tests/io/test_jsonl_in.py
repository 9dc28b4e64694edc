"""Lines in: bounded, and parsed strictly."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrun.io.input_types import BadRowError
from tightrun.io.jsonl import MAX_DEPTH, json_text, parse_object, read_lines


def lines_of(data: bytes, **options: int) -> list[tuple[int, int, bytes | None]]:
    return [
        (line.offset, line.number, line.raw) for line in read_lines(io.BytesIO(data), **options)
    ]


def why_bad(raw: bytes | None) -> str:
    with pytest.raises(BadRowError) as caught:
        parse_object(raw)
    assert caught.value.code == "bad_row"
    return str(caught.value)


def test_blank_lines_count_as_lines_but_are_no_rows() -> None:
    assert lines_of(b"a\n\n  \t\r\nb") == [(0, 1, b"a\n"), (8, 4, b"b")]


def test_reading_can_begin_at_any_line() -> None:
    assert lines_of(b"a\n\nb\nc\n", offset=3, number=3) == [(3, 3, b"b\n"), (5, 4, b"c\n")]


def test_a_line_above_the_bound_is_reported_and_passed_over() -> None:
    data = b"short\n" + b"x" * 3_000_000 + b"\nnext\n"
    assert lines_of(data, limit=100) == [
        (0, 1, b"short\n"),
        (6, 2, None),
        (3_000_007, 3, b"next\n"),
    ]


def test_a_line_just_within_the_bound_is_read() -> None:
    assert lines_of(b"x" * 100 + b"\nb", limit=100) == [(0, 1, b"x" * 100 + b"\n"), (101, 2, b"b")]


def test_a_byte_order_mark_at_the_start_is_not_part_of_the_line() -> None:
    assert lines_of(b"\xef\xbb\xbf{}\n\xef\xbb\xbf\n") == [
        (0, 1, b"{}\n"),
        (6, 2, b"\xef\xbb\xbf\n"),
    ]


@given(st.binary().map(lambda data: data.removeprefix(b"\xef\xbb\xbf")))
def test_every_line_that_is_not_blank_is_read_as_it_stands(data: bytes) -> None:
    expected = [line for line in data.split(b"\n") if line.strip()]
    assert [(raw or b"").removesuffix(b"\n") for _, _, raw in lines_of(data)] == expected


def test_the_message_for_bad_json_names_the_column() -> None:
    assert "not valid JSON" in why_bad(b'{"a": tru}')
    assert "(column 7)" in why_bad(b'{"a": tru}')


def test_the_message_for_invalid_utf8_names_the_byte() -> None:
    assert "not valid UTF-8 (byte 8 is 0xff)" in why_bad(b'{"a": "\xff"}')


def test_nan_is_refused_with_its_reason() -> None:
    assert "NaN and Infinity are not JSON" in why_bad(b'{"a": NaN}')


@pytest.mark.parametrize(
    ("raw", "kind"),
    [(b"[1]", "an array"), (b"3", "a number"), (b"null", "null"), (b'"x"', "a string")],
)
def test_a_line_must_be_an_object(raw: bytes, kind: str) -> None:
    assert f"this line is {kind}" in why_bad(raw)


def test_nesting_is_bounded() -> None:
    deepest = b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
    assert parse_object(deepest)["a"]
    assert "nests deeper" in why_bad(b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}")


def test_nesting_far_beyond_any_bound_does_not_crash() -> None:
    why_bad(b'{"a":' * 100_000)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert len(parse_object(b'{"a":[' + b"[]," * 1000 + b"[]]}")["a"]) == 1001


def test_a_line_that_was_too_long_to_keep_is_bad() -> None:
    assert "longer than 64 MiB" in why_bad(None)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**64, 10**40])
def test_integers_beyond_64_bits_stay_exact(number: int) -> None:
    assert parse_object(b'{"a": %d}' % number) == {"a": number}


def test_a_number_too_long_to_hold_is_bad() -> None:
    assert why_bad(b'{"a": ' + b"9" * 5000 + b"}")


@pytest.mark.parametrize("value", [2**70, {"a": [1, None, "ü"]}, 1.5, "x", True])
def test_json_text_reads_back_as_the_value(value: object) -> None:
    assert json.loads(json_text(value)) == value


def test_json_text_holds_bytes_as_hexadecimal() -> None:
    assert json_text({"a": b"\x01\xff"}) == '{"a":"01ff"}'
