"""Output that a run leaves unfinished is gone on with, as if there had been no break."""

from __future__ import annotations

import threading
from array import array
from dataclasses import replace
from typing import Any

import pytest

from tests.parity.tiny_models import as_text, ragged_prompts
from tests.runtime.engines import answers, ask, small_engine
from tests.runtime.stand_ins import Letters, sequence
from tightrun.core import Completion, Request, SamplingParams, TokenLogprob, Written
from tightrun.runtime.engine import Engine
from tightrun.runtime.going_on import Known, drawn_since, go_on
from tightrun.runtime.loaded_model import LoadedModel
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.sequence import Sequence

Loaded = tuple[EngineOptions, LoadedModel]
ENDS = frozenset({ord("$")})
PROMPTS = [as_text(p) for p in ragged_prompts(6, shared=4, longest=20)]


def known(tokens: int) -> Known:
    """So many tokens are known of every sample."""
    return lambda _row, _sample, _prompt: tokens


def gone_on(output: str, *, prompt: int = 5, room: int = 100, **sampling: Any) -> Sequence:
    """A new sequence behind a prompt known as 5 that is given what an earlier run wrote."""
    one = sequence([1, 2], room=room, **sampling)
    one.prompt_check = 5
    go_on(one, Written(0, 0, prompt, array("i", map(ord, output))), ENDS, Letters())
    return one


def test_what_was_written_stands_behind_the_prompt_and_is_to_be_computed() -> None:
    one = gone_on("abc")
    assert list(one.tokens) == [1, 2, *map(ord, "abc")]
    assert (one.output_tokens, one.uncomputed, one.finish_reason) == (3, 5, None)


def test_what_followed_another_prompt_is_left_out() -> None:
    one = gone_on("abc", prompt=6)
    assert (list(one.tokens), one.finish_reason) == ([1, 2], None)


@pytest.mark.parametrize(
    ("output", "sampling", "reason", "stop_reason"),
    [
        ("ab$", {}, "stop", None),
        ("ab$", {"ignore_eos": True}, None, None),
        ("ab$", {"min_tokens": 4}, None, None),
        ("ab.", {"stop_token_ids": (ord("."),)}, "stop", "."),
        ("abEN", {"stop": ("END",)}, None, None),
        ("abEND", {"stop": ("END",)}, "stop", "END"),
    ],
)
def test_what_was_written_may_have_ended_already(
    output: str, sampling: dict[str, Any], reason: str | None, stop_reason: str | None
) -> None:
    one = gone_on(output, **sampling)
    told = str(ord(stop_reason)) if stop_reason == "." else stop_reason
    assert (one.finish_reason, one.stop_reason) == (reason, told)


@pytest.mark.parametrize("room", [2, 3])
def test_what_fills_its_room_has_ended(room: int) -> None:
    """A smaller context than the earlier run's leaves what that run could write."""
    one = gone_on("abc", room=room)
    assert (one.finish_reason, one.output_tokens) == ("length", 3)


def test_only_what_is_not_known_is_handed_out() -> None:
    one, other = gone_on("abc"), gone_on("")
    [written] = drawn_since(known(1), [one, other])
    assert (written.first, list(written.tokens), written.prompt) == (1, [ord("b"), ord("c")], 5)
    assert list(drawn_since(known(3), [one])) == []


def test_a_token_counts_when_its_log_probability_is_there() -> None:
    one = gone_on("")
    one.request = replace(one.request, sampling=SamplingParams(logprobs=0))
    one.tokens.extend([7, 8])
    assert list(drawn_since(known(0), [one])) == []
    one.logprobs = [TokenLogprob(7, "", -0.5)]
    [written] = drawn_since(known(0), [one])
    assert (list(written.tokens), written.logprobs) == ([7], (TokenLogprob(7, "", -0.5),))


# --- with an engine ------------------------------------------------------------------------------


def begun(engine: Engine, requests: list[Request], passes: int) -> tuple[list[Written], set[int]]:
    """What a run that is stopped after so many passes leaves, and the rows it finished."""
    stop, done = threading.Event(), list[Completion]()
    count = iter(range(10_000))
    engine.run(requests, done.append, lambda _: stop.set() if next(count) >= passes else None, stop)
    return engine.unfinished(known(0)), {c.row_index for c in done}


def told(completion: Completion) -> list[tuple[Any, ...]]:
    return [
        (s.text, s.finish_reason, s.stop_reason, s.completion_tokens) for s in completion.samples
    ]


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 0.9, "top_p": 0.9, "n": 2},
    "penalised": {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "min_tokens": 8},
    # Some samples of a row meet a stop string long before the others end.
    "cut": {"temperature": 1.0, "stop": ("33", "70"), "n": 3},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("passes", [3, 9])
def test_a_run_in_two_parts_comes_to_what_one_run_comes_to(
    tiny_llama: Loaded, way: str, passes: int
) -> None:
    sampling = {"max_tokens": 24, "ignore_eos": True, "logprobs": 1} | WAYS[way]
    requests = [ask(i, prompt, **sampling) for i, prompt in enumerate(PROMPTS)]
    whole = answers(small_engine(tiny_llama), requests)
    left, finished = begun(small_engine(tiny_llama, batch_size=4), requests, passes)
    rest = [
        replace(r, written=tuple(w for w in left if w.row_index == r.row_index))
        for r in requests
        if r.row_index not in finished
    ]
    engine = small_engine(tiny_llama, batch_size=3, prefill_tokens=7)
    got = answers(engine, rest)
    assert any(r.written for r in rest)
    assert {row: told(c) for row, c in got.items()} == {
        row: told(c) for row, c in whole.items() if row not in finished
    }
    assert all(
        len(s.logprobs or ()) == s.completion_tokens for c in got.values() for s in c.samples
    )
    drawn = sum(s.completion_tokens for c in got.values() for s in c.samples)
    carried = sum(len(w.tokens) for w in left)
    assert engine.summary().output_tokens == drawn - carried
    assert engine.unfinished(known(0)) == []
