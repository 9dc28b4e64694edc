"""A link as a CUDA stream: its order is the order of enqueueing.

What comes after another stream's work waits on the stream. What comes after a thread's work (a disk
read, work of the host lane) cannot: a stream that waited for a thread would hold back all behind
it. Such copies are enqueued by the thread that ends that work, so that others pass meanwhile.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence

import torch

from tightrun.runtime.cuda_events import (
    CudaClock,
    CudaMark,
    CudaTransfer,
    EventWatcher,
    new_stream,
    reached,
)
from tightrun.runtime.device import Happening, LaneSpan, Move, Urgency
from tightrun.runtime.happenings import LinkClosedError, when_all
from tightrun.runtime.lane_log import LaneLog

PIECE_BYTES = 16 << 20


class CudaLink:
    """One direction of the link of a card. `moved_bytes` and `busy_s` are as of `collect`.

    `seams` are addresses no copy may cross: registered host memory comes in pieces.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        watcher: EventWatcher,
        log: LaneLog,
        seams: list[int],
    ) -> None:
        self.name = name
        self.moved_bytes = 0
        self.busy_s = 0.0
        self.stream = new_stream(device)
        self._watcher = watcher
        self._log = log
        self._seams = seams
        self._lock = threading.Lock()
        self._pending: deque[tuple[CudaTransfer, tuple[Move, ...]]] = deque()
        self._closed = False

    def send(
        self,
        moves: Sequence[Move],
        urgency: Urgency,  # noqa: ARG002 - the order of enqueueing is the loop's
        name: str,
        after: Sequence[Happening] = (),
    ) -> CudaTransfer:
        """Take the moves on; see `Link`. May be called by any thread."""
        kept = tuple(moves)
        transfer = CudaTransfer(name, sum(move.nbytes for move in kept), self._watcher)
        on_stream = [h for h in after if isinstance(h, CudaMark | CudaTransfer)]
        before: list[Happening] = [h for h in after if not isinstance(h, CudaMark | CudaTransfer)]
        before += [h.enqueued for h in on_stream if isinstance(h, CudaTransfer)]
        when_all(before, lambda error: self._enqueue(transfer, kept, on_stream, error))
        return transfer

    def collect(self, clock: CudaClock) -> None:
        """Time and count what is over, and let go of its memory."""
        with self._lock:
            while self._pending and reached(self._pending[0][0].end):
                transfer, _ = self._pending.popleft()
                transfer.start_s = clock.seconds(transfer.begin)
                transfer.end_s = clock.seconds(transfer.end)
                self.busy_s += transfer.end_s - transfer.start_s
                self.moved_bytes += transfer.nbytes
                span = LaneSpan(
                    self.name, transfer.name, transfer.start_s, transfer.end_s, transfer.nbytes
                )
                self._log.enter(span)

    def close(self) -> None:
        """Enqueue nothing more, and wait for the copies under way: memory is let go after this."""
        with self._lock:
            self._closed = True
        self.stream.synchronize()

    def _enqueue(
        self,
        transfer: CudaTransfer,
        moves: tuple[Move, ...],
        after: list[CudaMark | CudaTransfer],
        error: BaseException | None,
    ) -> None:
        if error is None:
            with self._lock:
                error = self._put_on_stream(transfer, moves, after)
        transfer.enqueued.finish(error)

    def _put_on_stream(
        self,
        transfer: CudaTransfer,
        moves: tuple[Move, ...],
        after: list[CudaMark | CudaTransfer],
    ) -> BaseException | None:
        if self._closed:
            return LinkClosedError(f"the link {self.name} is closed")
        try:
            # The thread may be any; slots may have been made in inference mode.
            with torch.inference_mode(), torch.cuda.stream(self.stream):
                for happening in after:
                    event = (
                        happening.end if isinstance(happening, CudaTransfer) else happening.event
                    )
                    self.stream.wait_event(event)
                transfer.begin.record(self.stream)
                for target, source in pieces(moves, self._seams):
                    target.copy_(source, non_blocking=True)
                transfer.end.record(self.stream)
        except RuntimeError as error:  # CUDA's own; raised by whoever waits for the transfer
            return error
        self._pending.append((transfer, moves))
        return None


def pieces(
    moves: Sequence[Move], seams: list[int], nbytes: int = PIECE_BYTES
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Targets and sources of at most `nbytes`, none of which crosses a seam."""
    for move in moves:
        source = move.source
        assert isinstance(source, torch.Tensor), "files are read by the disk link"
        assert source.numel() == move.nbytes
        begin = 0
        while begin < move.nbytes:
            end = min(begin + nbytes, move.nbytes)
            for tensor in (move.target, source):
                end = min(end, _next_seam(seams, tensor.data_ptr() + begin) - tensor.data_ptr())
            yield move.target[begin:end], source[begin:end]
            begin = end


def _next_seam(seams: list[int], address: int) -> int:
    """The first seam behind an address; seams ascend."""
    place = bisect_right(seams, address)
    return seams[place] if place < len(seams) else 1 << 63
