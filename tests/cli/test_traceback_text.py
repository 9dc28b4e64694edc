"""What is kept of an error, in a file that promises to hold no prompt."""

from __future__ import annotations

import json

import pytest

from tightrun.cli.traceback_text import LEFT_OUT, kept_words, traceback_text
from tightrun.io.outputs import OutputError

SECRET = "what the person asked"


def caught(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        try:
            if cause is not None:
                raise cause
        except Exception as first:
            raise error from first
        raise error
    except Exception as found:
        return found


def decoding_error() -> Exception:
    try:
        json.loads(f"{{{SECRET}")
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        TypeError(f"unhashable: {SECRET!r}"),
        UnicodeEncodeError("utf-8", SECRET, 0, 1, "surrogates"),
        RecursionError(SECRET),
        decoding_error(),
    ],
)
def test_words_that_may_quote_a_row_are_left_out(error: Exception) -> None:
    for found in (caught(error), caught(RuntimeError("broken"), error)):
        text = traceback_text(found)
        assert SECRET not in text
        assert LEFT_OUT in text
        assert type(error).__qualname__ in text
        assert "in caught" in text


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "out/x"),
        RuntimeError("the kernel is gone"),
        AssertionError("3 rows are missing"),
        OutputError("name another"),
    ],
)
def test_words_of_machines_and_our_own_are_kept(error: Exception) -> None:
    assert kept_words(error) == f"{type(error).__qualname__}: {error}"


def test_what_led_to_an_error_stands_before_it() -> None:
    text = traceback_text(caught(RuntimeError("second"), OSError("first")))
    assert text.index("first") < text.index("which led to") < text.index("second")
