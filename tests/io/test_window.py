"""The window: how far the reader may run ahead of the oldest unfinished row and shard."""

from __future__ import annotations

import random
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrun.io.window import Window


def test_rows_of_the_four_oldest_shards_are_admitted() -> None:
    window = Window(shard_rows=10, total_rows=100)
    assert window.wait_for_room(39, threading.Event())
    assert window.row_limit == 40


def test_a_sealed_shard_in_the_middle_makes_room_for_one_more() -> None:
    window = Window(shard_rows=10, total_rows=100)
    window.sealed(1)
    assert window.row_limit == 50


def test_a_row_too_far_beyond_the_oldest_unfinished_one_waits() -> None:
    window = Window(shard_rows=1000, total_rows=10_000, open_rows=8)
    for row in range(1, 8):
        window.finished(row)
    assert window.row_limit == 8
    window.finished(0)
    assert window.row_limit == 16


def test_a_waiting_reader_wakes_when_a_shard_is_sealed() -> None:
    window = Window(shard_rows=10, total_rows=100)
    woke: list[bool] = []
    reader = threading.Thread(
        target=lambda: woke.append(window.wait_for_room(40, threading.Event()))
    )
    reader.start()
    window.sealed(0)
    reader.join(5)
    assert woke == [True]


def test_a_waiting_reader_leaves_when_stopped() -> None:
    window = Window(shard_rows=10, total_rows=100)
    stop = threading.Event()
    left: list[bool] = []
    reader = threading.Thread(target=lambda: left.append(window.wait_for_room(99, stop)))
    reader.start()
    stop.set()
    reader.join(5)
    assert left == [False]


def test_a_waiting_reader_leaves_when_nothing_more_can_be_written() -> None:
    window = Window(shard_rows=10, total_rows=100)
    left: list[bool] = []
    reader = threading.Thread(
        target=lambda: left.append(window.wait_for_room(99, threading.Event()))
    )
    reader.start()
    window.abandon()
    reader.join(5)
    assert left == [False]


def test_a_stopped_reader_admits_nothing_even_where_there_is_room() -> None:
    stop = threading.Event()
    stop.set()
    assert not Window(10, 100).wait_for_room(0, stop)


def test_a_row_that_finishes_twice_is_our_mistake() -> None:
    window = Window(10, 100)
    window.finished(3)
    with pytest.raises(AssertionError, match="row 3 finished twice"):
        window.finished(3)


def test_the_last_shard_is_as_long_as_what_is_left() -> None:
    window = Window(shard_rows=10, total_rows=23)
    assert window.shards == 3
    assert window.rows_of(2) == range(20, 23)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 20), st.integers(0, 2**32))
def test_any_order_inside_the_window_comes_to_an_end(
    shard_rows: int, open_shards: int, open_rows: int, seed: int
) -> None:
    """A reader in order, and rows that finish in any order, never block each other for good."""
    total = 60
    window = Window(shard_rows, total, open_shards=open_shards, open_rows=open_rows)
    order = random.Random(seed)
    missing = [len(window.rows_of(shard)) for shard in range(window.shards)]
    next_row, at_work = 0, set[int]()
    while next_row < total or at_work:
        while next_row < total and next_row < window.row_limit:
            at_work.add(next_row)
            next_row += 1
        assert at_work, "neither a row to admit nor one to finish"
        row = order.choice(sorted(at_work))
        at_work.remove(row)
        window.finished(row)
        missing[row // shard_rows] -= 1
        if not missing[row // shard_rows]:
            window.sealed(row // shard_rows)
    assert window.oldest_unfinished == total


def test_threads_that_read_and_finish_get_through_together() -> None:
    total = 20_000
    window = Window(shard_rows=500, total_rows=total, open_rows=1_000)
    lock = threading.Lock()
    ready: list[int] = []
    missing = [len(window.rows_of(shard)) for shard in range(window.shards)]
    reading = threading.Event()

    def read() -> None:
        for row in range(0, total, 50):
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
    assert window.oldest_unfinished == total
