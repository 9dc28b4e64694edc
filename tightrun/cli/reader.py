"""Requests on their way from the reader to the engine, bounded in bytes.

The reader runs in a thread of its own, so that the engine never waits for a file; the window
of the writer and the size of the queue keep it from running ahead of the memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from tightrun.cli.stopping import Stop
from tightrun.core import Completion, Request
from tightrun.io.inputs import InputChunk
from tightrun.io.outputs import OutputWriter

QUEUE_BYTES = 8 * 2**20
_POLL_S = 0.1


class RequestQueue(Iterator[Request]):
    """A queue of requests that holds about `max_bytes` of input and ends when closed.

    A group larger than `max_bytes` is let in alone. After a stop the iteration ends at once:
    what still waits in the queue has not begun.
    """

    def __init__(self, max_bytes: int, stop: threading.Event) -> None:
        self._max_bytes = max_bytes
        self._stop = stop
        self._changed = threading.Condition()
        self._groups: deque[tuple[deque[Request], int]] = deque()
        self._bytes = 0
        self._closed = False

    def put(self, requests: Sequence[Request], nbytes: int) -> bool:
        """Adds requests that take `nbytes` together; waits for room. False after a stop."""
        if not requests:
            return not self._stop.is_set()
        with self._changed:
            while self._groups and self._bytes + nbytes > self._max_bytes:
                if self._stop.is_set():
                    return False
                self._changed.wait(_POLL_S)
            self._groups.append((deque(requests), nbytes))
            self._bytes += nbytes
            self._changed.notify_all()
        return not self._stop.is_set()

    @property
    def empty(self) -> bool:
        """Whether all that was put has been taken."""
        with self._changed:
            return not self._groups

    def close(self) -> None:
        """Says that no more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __next__(self) -> Request:
        with self._changed:
            while not self._groups:
                if self._closed or self._stop.is_set():
                    raise StopIteration
                self._changed.wait(_POLL_S)
            if self._stop.is_set():
                raise StopIteration
            requests, nbytes = self._groups[0]
            request = requests.popleft()
            if not requests:
                self._groups.popleft()
                self._bytes -= nbytes
                self._changed.notify_all()
            return request


def start_reader(
    chunks: Iterable[InputChunk],
    writer: OutputWriter,
    queue: RequestQueue,
    stop: Stop,
    *,
    admitted: Callable[[InputChunk, Sequence[Request | Completion]], None],
    finish: Callable[[Completion], None],
) -> threading.Thread:
    """Starts the thread that reads `chunks`, admits them as the window allows, and feeds them.

    `admitted` is told of each chunk and those of its rows that earlier runs have not done. A row
    that cannot be executed goes to `finish` at once. An error of the reader stops the run.
    """

    def read() -> None:
        with stop.catching():
            for chunk in chunks:
                if not writer.window.wait_for_room(chunk.items[-1].row_index, stop.event):
                    break
                items = writer.admit(chunk)
                admitted(chunk, items)
                for item in items:
                    if isinstance(item, Completion):
                        finish(item)
                requests = [item for item in items if isinstance(item, Request)]
                if not queue.put(requests, chunk.nbytes):
                    break
        queue.close()

    thread = threading.Thread(target=read, name="tightrun-reader", daemon=True)
    thread.start()
    return thread
