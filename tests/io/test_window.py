"""The window: how far the reader may run ahead of the oldest unfinished row and shard."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrun.io.window import Window

NOW = threading.Event()
NOW.set()


def opened(shard_rows: int = 10, shards: int = 4, **limits: int) -> Window:
    """A window whose first shards are open."""
    window = Window(shard_rows, **limits)
    for shard in range(shards):
        window.open(range(shard * shard_rows, (shard + 1) * shard_rows))
    return window


def would_wait(wait: Callable[[threading.Event], bool]) -> bool:
    """Whether it does not come at once; it is left alone then."""
    stop = threading.Event()
    came: list[bool] = []
    thread = threading.Thread(target=lambda: came.append(wait(stop)))
    thread.start()
    thread.join(0.02)
    stop.set()
    thread.join(5)
    return came == [False]


def test_four_shards_are_open_at_a_time() -> None:
    assert not would_wait(opened(shards=3).wait_to_open)
    window = opened(shards=4)
    assert would_wait(window.wait_to_open)
    window.sealed(2)
    assert not would_wait(window.wait_to_open)


def test_a_row_too_far_beyond_the_oldest_unfinished_one_waits() -> None:
    window = opened(shard_rows=1000, open_rows=8)
    for row in range(1, 8):
        window.finished(row)
    assert would_wait(partial(window.wait_for_room, 8))
    window.finished(0)
    assert not would_wait(partial(window.wait_for_room, 15))
    assert would_wait(partial(window.wait_for_room, 16))


def test_what_is_oldest_goes_by_the_order_of_reading() -> None:
    window = Window(10, open_rows=12)
    for shard in (7, 2):
        window.open(range(10 * shard, 10 * shard + 10))
    assert not would_wait(partial(window.wait_for_room, 21))
    assert would_wait(partial(window.wait_for_room, 22))
    window.finished(70)
    assert not would_wait(partial(window.wait_for_room, 22))


def test_a_short_shard_may_come_in_the_middle() -> None:
    window = Window(10, open_rows=12)
    window.open(range(90, 93))
    window.open(range(0, 10))
    assert not would_wait(partial(window.wait_for_room, 8))
    assert would_wait(partial(window.wait_for_room, 9))


def test_a_waiting_reader_wakes_when_a_shard_is_sealed() -> None:
    window = opened()
    woke: list[bool] = []
    reader = threading.Thread(target=lambda: woke.append(window.wait_to_open(threading.Event())))
    reader.start()
    window.sealed(0)
    reader.join(5)
    assert woke == [True]


def test_a_waiting_reader_leaves_when_stopped() -> None:
    window = opened(open_rows=5)
    stop = threading.Event()
    left: list[bool] = []
    reader = threading.Thread(target=lambda: left.append(window.wait_for_room(39, stop)))
    reader.start()
    stop.set()
    reader.join(5)
    assert left == [False]


def test_a_waiting_reader_leaves_when_nothing_more_can_be_written() -> None:
    window = opened(open_rows=5)
    left: list[bool] = []
    reader = threading.Thread(
        target=lambda: left.append(window.wait_for_room(39, threading.Event()))
    )
    reader.start()
    window.abandon()
    reader.join(5)
    assert left == [False]


def test_a_stopped_reader_admits_nothing_even_where_there_is_room() -> None:
    assert not opened().wait_for_room(0, NOW)
    assert not opened(shards=1).wait_to_open(NOW)


def test_a_row_that_finishes_twice_is_our_mistake() -> None:
    window = opened()
    window.finished(3)
    with pytest.raises(AssertionError, match="row 3 finished twice"):
        window.finished(3)


def test_a_shard_that_is_sealed_twice_is_our_mistake() -> None:
    window = opened()
    window.sealed(1)
    with pytest.raises(AssertionError, match="shard 1 sealed twice"):
        window.sealed(1)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 20), st.integers(0, 2**32))
def test_any_order_inside_the_window_comes_to_an_end(
    shard_rows: int, open_shards: int, open_rows: int, seed: int
) -> None:
    """Shards read in any order, and rows that finish in any, never block each other for good."""
    total, order = 60, random.Random(seed)
    window = Window(shard_rows, open_shards=open_shards, open_rows=open_rows)
    shards = [range(at, min(at + shard_rows, total)) for at in range(0, total, shard_rows)]
    missing = [len(rows) for rows in shards]
    order.shuffle(shards)
    reading, open_now, at_work, oldest = list[int](), set[int](), set[int](), 0
    while shards or at_work or oldest < total:
        if shards and len(open_now) < open_shards:
            assert window.wait_to_open(threading.Event())
            window.open(shards[0])
            open_now.add(shards[0].start // shard_rows)
            at_work.update(range(len(reading), len(reading) + len(shards[0])))
            reading += shards.pop(0)
        place = order.choice([place for place in at_work if place < oldest + open_rows])
        assert window.wait_for_room(reading[place], threading.Event())
        at_work.remove(place)
        oldest = min(at_work, default=len(reading))
        shard = reading[place] // shard_rows
        window.finished(reading[place])
        missing[shard] -= 1
        if not missing[shard]:
            window.sealed(shard)
            open_now.remove(shard)


def test_threads_that_read_and_finish_get_through_together() -> None:
    shards = [range(at, at + 500) for at in range(0, 20_000, 500)]
    window = Window(500, open_rows=1_000)
    random.Random(0).shuffle(shards)
    lock = threading.Lock()
    ready: list[int] = []
    missing = [500] * len(shards)
    reading = threading.Event()

    def read() -> None:
        for rows in shards:
            assert window.wait_to_open(threading.Event())
            window.open(rows)
            for row in rows[::50]:
                assert window.wait_for_room(row + 49, threading.Event())
                with lock:
                    ready.extend(range(row, row + 50))
        reading.set()

    def finish(seed: int) -> None:
        order = random.Random(seed)
        while True:
            with lock:
                if not ready:
                    if reading.is_set():
                        return
                    row = -1
                else:
                    row = ready.pop(order.randrange(len(ready)))
            if row < 0:
                time.sleep(0.0005)
                continue
            window.finished(row)
            with lock:
                missing[row // 500] -= 1
                last = not missing[row // 500]
            if last:
                window.sealed(row // 500)

    threads = [threading.Thread(target=read, daemon=True)]
    threads += [threading.Thread(target=finish, args=(seed,), daemon=True) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert not any(missing)
