"""Completions are made and handed on in a thread of their own."""

from __future__ import annotations

import threading

import pytest

from tests.runtime.stand_ins import Letters, finished
from tightrun.core import Completion, RowError, TokenLogprob
from tightrun.runtime.delivery import Delivery
from tightrun.runtime.sequence import Sequence


def delivered(*items: Sequence | Completion) -> list[Completion]:
    got: list[Completion] = []
    delivery = Delivery(Letters(), got.append)
    for item in items:
        delivery.put(item)
    delivery.close()
    return got


def test_a_finished_sequence_becomes_its_text() -> None:
    [completion] = delivered(finished("hello", row=3, seed=7))
    [sample] = completion.samples
    assert (completion.row_index, completion.id, completion.seed) == (3, "r3", 7)
    assert (completion.prompt_tokens, completion.error) == (1, None)
    assert (sample.text, sample.finish_reason, sample.completion_tokens) == ("hello", "length", 5)


def test_the_token_that_ends_it_counts_but_is_not_said() -> None:
    stopped = finished("done.", reason="stop")
    [completion] = delivered(stopped)
    assert completion.samples[0].text == "done"
    assert completion.samples[0].completion_tokens == 5


def test_a_text_cut_at_a_stop_string_is_taken_as_it_is() -> None:
    stopped = finished("abcSTOP", reason="stop")
    stopped.text, stopped.stop_reason = "abc", "STOP"
    [completion] = delivered(stopped)
    assert (completion.samples[0].text, completion.samples[0].stop_reason) == ("abc", "STOP")


def test_the_samples_of_a_request_come_together_and_in_order() -> None:
    parts = [finished(text, row=1, sample=i, n=3) for i, text in enumerate("abc")]
    [completion] = delivered(parts[2], parts[0], parts[1])
    assert [sample.text for sample in completion.samples] == ["a", "b", "c"]


def test_a_request_with_a_failed_sample_has_the_error_and_no_text() -> None:
    parts = [finished(text, row=1, sample=i, n=2) for i, text in enumerate("ab")]
    parts[0].error = RowError("internal", "broken")
    [completion] = delivered(*parts)
    assert (completion.samples, completion.error) == ((), RowError("internal", "broken"))


def test_logprobs_get_the_text_of_their_tokens() -> None:
    done = finished("x", logprobs=1)
    done.logprobs = [TokenLogprob(ord("x"), "", -0.5, ((ord("y"), "", -0.25),))]
    [completion] = delivered(done)
    [scored] = completion.samples[0].logprobs or ()
    assert (scored.token, scored.top) == ("x", ((ord("y"), "y", -0.25),))


def test_a_completion_that_is_ready_is_handed_on_as_it_is() -> None:
    ready = Completion(0, "r0", error=RowError("bad_row", "empty"))
    assert delivered(ready) == [ready]


def test_finish_is_called_in_another_thread() -> None:
    threads: list[str] = []
    delivery = Delivery(Letters(), lambda _: threads.append(threading.current_thread().name))
    delivery.put(finished("a"))
    delivery.close()
    assert threads == ["deliver"]


def test_an_exception_of_finish_comes_back_on_close() -> None:
    def finish(_completion: Completion) -> None:
        raise OSError("disk full")

    delivery = Delivery(Letters(), finish)
    delivery.put(finished("a"))
    with pytest.raises(OSError, match="disk full"):
        delivery.close()


def test_after_an_exception_of_finish_nothing_more_is_taken() -> None:
    calls: list[int] = []

    def finish(completion: Completion) -> None:
        calls.append(completion.row_index)
        raise OSError("disk full")

    delivery = Delivery(Letters(), finish)

    def put_many() -> None:
        for row in range(100_000):
            delivery.put(finished("a", row=row))

    with pytest.raises(OSError, match="disk full"):
        put_many()
    with pytest.raises(OSError, match="disk full"):
        delivery.close()
    assert calls == [0]


def test_close_leaves_no_thread() -> None:
    delivery = Delivery(Letters(), lambda _: None)
    delivery.close()
    assert "deliver" not in {thread.name for thread in threading.enumerate()}
