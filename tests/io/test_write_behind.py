"""Work in a thread of its own: in order, bounded, and no error lost."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from tightrun.io.write_behind import WriteBehind, WriteError


def nothing() -> None:
    pass


def fail() -> None:
    raise OSError(28, "No space left on device")


def made(period_s: float = 60.0, **hooks: object) -> WriteBehind:
    given = {"every": nothing, "failed": nothing, **hooks}
    return WriteBehind(period_s=period_s, name="test", **given)  # type: ignore[arg-type]


def test_work_is_done_in_the_order_it_was_given() -> None:
    behind, done = made(), list[int]()
    for i in range(100):
        behind.give(partial(done.append, i))
    behind.close()
    assert done == list(range(100))


def test_drain_returns_when_all_is_done() -> None:
    behind, done = made(), list[int]()
    behind.give(partial(time.sleep, 0.05))
    behind.give(partial(done.append, 1))
    behind.drain()
    assert done == [1]
    behind.close()


def test_who_gives_waits_only_when_the_room_is_used_up() -> None:
    behind, go = made(), threading.Event()
    behind.give(partial(go.wait, 10), nbytes=60, room=100)
    behind.give(nothing, nbytes=40, room=100)
    third = threading.Thread(target=lambda: behind.give(nothing, nbytes=1, room=100))
    third.start()
    third.join(0.05)
    assert third.is_alive()
    go.set()
    third.join(5)
    assert not third.is_alive()
    behind.close()


def test_work_larger_than_the_room_is_taken_alone() -> None:
    behind, done = made(), list[int]()
    behind.give(partial(done.append, 1), nbytes=1000, room=10)
    behind.close()
    assert done == [1]


@pytest.mark.parametrize("call", ["give", "drain", "close"])
def test_an_error_is_raised_by_the_next_call_with_its_cause(call: str) -> None:
    failed = threading.Event()
    behind = made(failed=failed.set)
    behind.give(fail)
    assert failed.wait(5)
    calls = {"give": lambda: behind.give(nothing), "drain": behind.drain, "close": behind.close}
    for _ in range(2):
        with pytest.raises(WriteError, match="No space left on device") as raised:
            calls[call]()
        assert isinstance(raised.value.__cause__, OSError)


def test_after_an_error_what_waits_is_dropped() -> None:
    behind, go, done = made(), threading.Event(), list[int]()
    behind.give(partial(go.wait, 10))
    behind.give(fail)
    behind.give(partial(done.append, 1))
    go.set()
    with pytest.raises(WriteError):
        behind.close()
    assert done == []


def test_an_error_wakes_who_waits_for_room() -> None:
    behind, go, raised = made(), threading.Event(), list[bool]()

    def wait_and_fail() -> None:
        go.wait(10)
        fail()

    def give() -> None:
        try:
            behind.give(nothing, nbytes=100, room=100)
        except WriteError:
            raised.append(True)

    behind.give(wait_and_fail, nbytes=100, room=100)
    waiting = threading.Thread(target=give)
    waiting.start()
    go.set()
    waiting.join(5)
    assert raised == [True]


def test_the_regular_work_is_done_also_when_nothing_comes() -> None:
    done = threading.Semaphore(0)
    behind = made(period_s=0.01, every=done.release)
    assert done.acquire(timeout=5)
    assert done.acquire(timeout=5)
    behind.close()


def test_an_error_of_the_regular_work_is_not_lost() -> None:
    failed = threading.Event()
    behind = made(period_s=0.01, every=fail, failed=failed.set)
    assert failed.wait(5)
    with pytest.raises(WriteError, match="No space left"):
        behind.close()
