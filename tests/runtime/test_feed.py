"""Requests become sequences beside the loop, bounded, and bad ones become error rows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.runtime.stand_ins import Letters, request
from tightrun.core import Completion, Request
from tightrun.runtime import feed as module
from tightrun.runtime.feed import Feed
from tightrun.runtime.rope_sides import RopeSides
from tightrun.runtime.sequence import Sequence
from tightrun.runtime.tokenizer import PromptError

VOCAB = 0x110000


class Reading:
    """A feed over some requests, with what it refused."""

    def __init__(
        self,
        requests: Iterable[Request],
        *,
        context: int = 100,
        vocab: int = VOCAB,
        sides: RopeSides | None = None,
        truncate: bool = False,
        tokenizer: Letters | None = None,
    ) -> None:
        self.refused: list[Completion] = []
        self.finished: list[Sequence] = []
        self.stop = threading.Event()
        self.feed = Feed(
            requests,
            tokenizer or Letters(),
            context,
            vocab,
            sides or RopeSides(),
            ends=frozenset({ord("$")}),
            truncate=truncate,
            deliver=self._deliver,
            stop=self.stop,
        )

    def _deliver(self, item: Completion | Sequence) -> None:
        if isinstance(item, Completion):
            self.refused.append(item)
        else:
            self.finished.append(item)

    def all(self) -> list[Sequence]:
        """Every sequence, taken one by one until there are no more."""
        taken: list[Sequence] = []
        while more := self.feed.take(1, wait=True):
            taken += more
        return taken


def eventually(what: Callable[[], bool]) -> bool:
    end = time.monotonic() + 5
    while not what() and time.monotonic() < end:
        time.sleep(0.005)
    return what()


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_a_request_becomes_its_tokens_in_order() -> None:
    taken = Reading([request(0, "ab"), request(1, "c")]).all()
    assert [list(s.tokens) for s in taken] == [[97, 98], [99]]
    assert [(s.request.row_index, s.prompt_tokens, s.computed) for s in taken] == [
        (0, 2, 0),
        (1, 1, 0),
    ]


def test_room_is_what_may_be_written() -> None:
    [one] = Reading([request(0, "abc", max_tokens=20)]).all()
    assert (one.room, one.most_tokens) == (20, 23)


def test_room_ends_with_the_context() -> None:
    [one] = Reading([request(0, "a" * 95, max_tokens=20)], context=100).all()
    assert (one.room, one.most_tokens) == (5, 100)


def test_several_samples_travel_with_the_first() -> None:
    [first] = Reading([request(0, "ab", n=3)]).all()
    assert [s.sample for s in (first, *first.siblings)] == [0, 1, 2]
    assert all(list(s.tokens) == [97, 98] for s in first.siblings)
    assert first.siblings[0].tokens is not first.tokens


def test_the_side_of_a_rope_is_chosen_by_the_longest_it_may_become() -> None:
    rows = [request(0, "a" * 10, max_tokens=7), request(1, "a" * 10, max_tokens=8)]
    taken = Reading(rows, sides=RopeSides(threshold=16)).all()
    assert [s.rope_side for s in taken] == [0, 1]


def test_a_prompt_without_room_for_a_token_is_an_error_row() -> None:
    rows = [request(0, "a" * 100, seed=5), request(1, "a" * 99)]
    reading = Reading([replace(rows[0], attempt=2), rows[1]], context=100)
    assert [s.request.row_index for s in reading.all()] == [1]
    [refused] = reading.refused
    assert (refused.row_index, refused.seed, refused.attempt) == (0, 5, 2)
    assert refused.error is not None
    assert refused.error.code == "context_length"
    assert "100 tokens" in refused.error.message


def test_truncation_keeps_the_end_and_leaves_room() -> None:
    prompt = "x" * 200 + "y" * 60
    [one] = Reading([request(0, prompt, max_tokens=40)], truncate=True).all()
    assert "".join(map(chr, one.tokens)) == "y" * 60
    assert one.room == 40


def test_truncation_keeps_half_a_context_of_prompt_whatever_is_to_be_written() -> None:
    [one] = Reading([request(0, "x" * 300, max_tokens=1000)], truncate=True).all()
    assert (one.prompt_tokens, one.room) == (50, 50)


def test_truncation_leaves_what_fits_as_it_is() -> None:
    [one] = Reading([request(0, "x" * 99, max_tokens=50)], truncate=True).all()
    assert (one.prompt_tokens, one.room) == (99, 1)


def test_a_token_the_model_does_not_know_is_an_error_row() -> None:
    reading = Reading([request(0, "aé"), request(1, "a")], vocab=128)
    assert [s.request.row_index for s in reading.all()] == [1]
    [refused] = reading.refused
    assert refused.error is not None
    assert "the tokenizer is not this model's" in refused.error.message


def test_what_the_tokenizer_refuses_is_an_error_row() -> None:
    class Strict(Letters):
        def encode(self, request: Request) -> list[int]:
            if request.row_index == 1:
                raise PromptError("bad_messages", "no such role")
            return super().encode(request)

    reading = Reading([request(i, "a") for i in range(3)], tokenizer=Strict())
    assert [s.request.row_index for s in reading.all()] == [0, 2]
    assert [c.error.code for c in reading.refused if c.error] == ["bad_messages"]


def test_an_exception_of_the_requests_is_raised_where_they_are_taken() -> None:
    def broken() -> Iterator[Request]:
        yield request(0, "a")
        raise OSError("the file is gone")

    reading = Reading(broken())
    with pytest.raises(OSError, match="the file is gone"):
        reading.all()


def test_an_exception_of_the_tokenizer_is_raised_where_they_are_taken() -> None:
    class Broken(Letters):
        def encode(self, _request: Request) -> list[int]:
            raise RuntimeError("no vocabulary")

    with pytest.raises(RuntimeError, match="no vocabulary"):
        Reading([request(0, "a")], tokenizer=Broken()).all()


def test_reading_ends_with_its_requests_and_leaves_no_thread() -> None:
    reading = Reading([request(0, "a")])
    reading.all()
    assert reading.feed.over
    assert eventually(lambda: "encode" not in threads())


@pytest.mark.parametrize(
    ("limit", "value"), [("MOST_SEQUENCES_WAITING", 10), ("MOST_TOKENS_WAITING", 99)]
)
def test_only_so_much_waits_and_the_rest_is_read_later(
    limit: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, limit, value)
    read: list[int] = []

    def rows() -> Iterator[Request]:
        for row in range(100):
            read.append(row)
            yield request(row, "0123456789")

    reading = Reading(rows())
    assert eventually(lambda: reading.feed.waiting == 10)
    time.sleep(0.05)
    assert len(read) <= 12
    assert len(reading.all()) == 100


def test_closing_lets_go_of_a_thread_that_waits_for_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_SEQUENCES_WAITING", 1)
    reading = Reading([request(row, "a") for row in range(100)])
    reading.feed.close()
    assert eventually(lambda: "encode" not in threads())


def test_a_stop_ends_waiting_with_nothing() -> None:
    gate = threading.Event()

    def rows() -> Iterator[Request]:
        gate.wait(10)
        yield request(0, "a")

    reading = Reading(rows())
    threading.Timer(0.05, reading.stop.set).start()
    assert reading.feed.take(1, wait=True) == []
    gate.set()


def test_taking_without_waiting_takes_what_is_there() -> None:
    gate = threading.Event()

    def rows() -> Iterator[Request]:
        yield request(0, "a")
        gate.wait(10)

    reading = Reading(rows())
    assert eventually(lambda: reading.feed.waiting == 1)
    assert len(reading.feed.take(5, wait=False)) == 1
    assert reading.feed.take(5, wait=False) == []
    gate.set()


def test_a_look_ahead_takes_nothing() -> None:
    reading = Reading([request(row, "a") for row in range(3)])
    reading.feed.wait_for(2)
    assert [s.request.row_index for s in reading.feed.peek(2)] == [0, 1]
    assert len(reading.all()) == 3


def test_a_look_ahead_does_not_wait_for_rows_that_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows are admitted as others finish, and none can finish before the look-ahead returns."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    gate = threading.Event()

    def rows() -> Iterator[Request]:
        yield request(0, "a")
        gate.wait(30)
        yield request(1, "b")

    reading = Reading(rows())
    reading.feed.wait_for(64)
    assert not gate.is_set()
    gate.set()
    assert len(reading.all()) == 2


def test_what_may_still_be_written_is_known_while_it_waits() -> None:
    rows: list[Any] = [request(0, "a", max_tokens=5), request(1, "a", max_tokens=7, n=2)]
    reading = Reading(rows)
    reading.feed.wait_for(2)
    assert reading.feed.waiting_rooms == [5, 14]
