"""When an output is done: end tokens, stop tokens, stop strings, length."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.stand_ins import Letters, Utf8, sequence
from tightrun.core import TokenLogprob
from tightrun.runtime.finishing import append_token
from tightrun.runtime.sequence import Sequence
from tightrun.runtime.tokenizer import Tokenizer

END = ord("$")


class Words(Letters):
    """Token i is the i-th of these texts."""

    def __init__(self, *texts: str) -> None:
        self._texts = texts

    def decode(self, tokens: list[int]) -> str:
        return "".join(self._texts[t] for t in tokens)


def write(tokens: list[int], tokenizer: Tokenizer, *, room: int = 100, **sampling: Any) -> Sequence:
    """A sequence that was given tokens until it was done."""
    one = sequence([0], room=room, **sampling)
    for token in tokens:
        if one.finish_reason is not None:
            break
        append_token(one, token, None, frozenset({END}), tokenizer)
    return one


def say(text: str, **options: Any) -> Sequence:
    return write([ord(letter) for letter in text], Letters(), **options)


def test_an_output_goes_on_until_something_ends_it() -> None:
    assert say("abc").finish_reason is None


def test_an_end_token_ends_it() -> None:
    done = say("ab$c")
    assert (done.finish_reason, done.stop_reason, done.output_tokens) == ("stop", None, 3)


def test_an_end_token_may_be_ignored() -> None:
    assert say("ab$c", ignore_eos=True).output_tokens == 4


def test_a_stop_token_ends_it_and_is_named_by_its_number() -> None:
    done = say("abXc", stop_token_ids=(ord("X"),))
    assert (done.finish_reason, done.stop_reason) == ("stop", str(ord("X")))
    assert done.output_tokens == 3


def test_a_stop_token_counts_even_where_end_tokens_are_ignored() -> None:
    assert say("a$b", ignore_eos=True, stop_token_ids=(END,)).finish_reason == "stop"


def test_the_room_ends_it() -> None:
    done = say("abcdef", room=3)
    assert (done.finish_reason, done.output_tokens) == ("length", 3)


def test_an_end_token_in_the_last_place_is_a_stop() -> None:
    assert say("ab$", room=3).finish_reason == "stop"


def test_nothing_but_the_room_ends_it_before_min_tokens() -> None:
    options: dict[str, Any] = {"stop": ("b",), "stop_token_ids": (ord("c"),), "min_tokens": 5}
    assert say("ab$c", **options).finish_reason is None
    assert say("ab$c", room=4, **options).finish_reason == "length"


def test_log_probabilities_are_kept_token_by_token() -> None:
    one = sequence([0], logprobs=1)
    append_token(one, 7, (-0.5, [(8, -0.25)]), frozenset(), Letters())
    append_token(one, 9, (-1.5, []), frozenset(), Letters())
    assert one.logprobs == [
        TokenLogprob(7, "", -0.5, ((8, "", -0.25),)),
        TokenLogprob(9, "", -1.5),
    ]


# --- stop strings ---------------------------------------------------------------------------


def test_the_text_ends_before_the_stop_string() -> None:
    done = say("hello END more", stop=("END",))
    assert (done.text, done.stop_reason) == ("hello ", "END")
    assert done.output_tokens == len("hello END")


def test_a_stop_string_may_span_tokens() -> None:
    done = write([0, 1, 2], Words("one st", "o", "p two"), stop=("stop",))
    assert (done.text, done.stop_reason) == ("one ", "stop")


def test_a_stop_string_may_lie_inside_a_token() -> None:
    done = write([0], Words("one stop two"), stop=("stop",))
    assert done.text == "one "


def test_a_stop_string_may_have_characters_of_many_bytes() -> None:
    done = write(list("niño 😀 sí".encode()), Utf8(), stop=("o 😀",))
    assert (done.text, done.stop_reason) == ("niñ", "o 😀")
    assert done.output_tokens == len("niño 😀".encode())


def test_half_a_character_in_front_does_no_harm() -> None:
    text = "ä" * 40 + "x"
    done = write(list(text.encode()), Utf8(), stop=("x",))
    assert done.text == "ä" * 40


def test_the_earliest_of_several_stop_strings_counts() -> None:
    done = write([0, 1], Words("a", "b then c"), stop=("c", "b"))
    assert (done.text, done.stop_reason) == ("a", "b")


def test_a_long_output_is_searched_where_it_grows() -> None:
    done = say("x" * 5000 + "STOP", stop=("STOP", "never"), room=10_000)
    assert done.text == "x" * 5000


def test_a_stop_string_completed_before_min_tokens_is_text() -> None:
    done = say("a.b.c", stop=(".",), min_tokens=3)
    assert (done.text, done.output_tokens) == ("a.b", 4)


def test_a_stop_string_completed_by_the_last_of_min_tokens_counts() -> None:
    done = say("ab.c", stop=("b.",), min_tokens=3)
    assert (done.text, done.output_tokens) == ("a", 3)


@pytest.mark.parametrize("min_tokens", range(6))
def test_a_stop_string_far_before_min_tokens_never_counts_late(min_tokens: int) -> None:
    done = say(".abcde", stop=(".",), min_tokens=min_tokens)
    assert (done.finish_reason == "stop") == (min_tokens <= 1)
