"""The queue between reader and engine."""

from __future__ import annotations

import threading

from tightrun.cli.reader import RequestQueue
from tightrun.core import Request


def requests(*rows: int) -> list[Request]:
    return [Request(row, str(row), "prompt") for row in rows]


def test_requests_come_out_in_the_order_they_went_in() -> None:
    queue = RequestQueue(1000, threading.Event())
    queue.put(requests(0, 1), 10)
    queue.put(requests(2), 5)
    queue.close()
    assert [request.row_index for request in queue] == [0, 1, 2]


def test_a_full_queue_makes_the_reader_wait() -> None:
    queue = RequestQueue(100, threading.Event())
    queue.put(requests(0), 90)
    second = threading.Thread(target=queue.put, args=(requests(1), 20), daemon=True)
    second.start()
    second.join(0.2)
    assert second.is_alive()
    next(queue)
    second.join(5)
    assert not second.is_alive()


def test_a_group_larger_than_the_queue_is_let_in_alone() -> None:
    queue = RequestQueue(100, threading.Event())
    assert queue.put(requests(0), 10**9)
    assert next(queue).row_index == 0


def test_rows_that_all_failed_to_parse_add_nothing() -> None:
    queue = RequestQueue(100, threading.Event())
    queue.put([], 50)
    queue.close()
    assert list(queue) == []


def test_a_stop_lets_the_waiting_reader_go() -> None:
    stop = threading.Event()
    queue = RequestQueue(100, stop)
    queue.put(requests(0), 100)
    threading.Timer(0.1, stop.set).start()
    assert not queue.put(requests(1), 100)


def test_a_stop_ends_the_queue_though_requests_wait() -> None:
    stop = threading.Event()
    queue = RequestQueue(100, stop)
    queue.put(requests(0), 10)
    stop.set()
    assert list(queue) == []


def test_a_waiting_engine_is_let_go_when_the_queue_closes() -> None:
    queue = RequestQueue(100, threading.Event())
    threading.Timer(0.1, queue.close).start()
    assert list(queue) == []
