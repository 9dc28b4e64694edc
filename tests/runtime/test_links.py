"""A link: real copies by urgency, at the asked rate; a failure reaches all that depends on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch

from tightrun.runtime.device import Move, Urgency
from tightrun.runtime.happenings import LinkClosedError, Outcome, TransferFailedError
from tightrun.runtime.lane_log import LaneLog
from tightrun.runtime.links import Mover, Pace, ThreadLink, copy_memory

MIB = 1 << 20


@contextmanager
def a_link(
    mover: Mover = copy_memory, *, log: LaneLog | None = None, **options: object
) -> Iterator[ThreadLink]:
    link = ThreadLink("h2d", mover, log or LaneLog(), **options)  # type: ignore[arg-type]
    try:
        yield link
    finally:
        link.close()


def filled(nbytes: int) -> torch.Tensor:
    return torch.arange(nbytes, dtype=torch.int32).to(torch.uint8)


def a_move(nbytes: int = 16) -> Move:
    return Move(torch.zeros(nbytes, dtype=torch.uint8), filled(nbytes))


def arrived(move: Move) -> bool:
    assert isinstance(move.source, torch.Tensor)
    return torch.equal(move.target, move.source)


class Gated:
    """A mover that notes the size of each piece; the first one waits until it is let through."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.sizes: list[int] = []

    def __call__(self, _move: Move, _begin: int, nbytes: int) -> None:
        self.sizes.append(nbytes)
        self.begun.set()
        assert self.gate.wait(10)


def failing(_move: Move, _begin: int, nbytes: int) -> None:
    if nbytes == 13:
        raise OSError(5, "the cable is torn")


def eventually(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not holds() and time.monotonic() < end:
        time.sleep(0.001)
    return holds()


def test_moves_of_any_size_arrive_whole() -> None:
    moves = [a_move(n) for n in (1, 70_000, 9 * MIB + 3, 5, 4 * MIB)]
    with a_link() as link:
        link.send(moves, Urgency.WEIGHTS, "weights").wait()
        assert all(map(arrived, moves))
        assert link.moved_bytes == sum(move.nbytes for move in moves)


@pytest.mark.parametrize(("count", "nbytes"), [(1, 32 * MIB), (256, 128 << 10)])
def test_bytes_pass_at_the_asked_rate(count: int, nbytes: int) -> None:
    asked = 250e6
    moves = [a_move(nbytes) for _ in range(count)]
    with a_link(pace=Pace(asked)) as link:
        seconds = []
        # Another process may take the processor for longer than a link catches up; not every time.
        for _ in range(4):
            begun = time.perf_counter()
            sent = [link.send([move], Urgency.WEIGHTS, "weights") for move in moves]
            for transfer in sent:
                transfer.wait()
            seconds.append(time.perf_counter() - begun)
    assert min(seconds) * asked == pytest.approx(count * nbytes, rel=0.03)


def test_who_waits_is_back_soon_after_the_end() -> None:
    with a_link(pace=Pace(1e9)) as link:
        late = []
        for _ in range(20):
            transfer = link.send([a_move(MIB)], Urgency.FETCH, "kv")
            transfer.wait()
            late.append(time.perf_counter() - transfer.end_s)
    assert min(late) < 0.0005


def test_latency_passes_before_every_move() -> None:
    with a_link(pace=Pace(1e9, latency_s=0.005)) as link:
        transfer = link.send([a_move(), a_move(), a_move()], Urgency.FETCH, "kv")
        transfer.wait()
        assert transfer.end_s - transfer.start_s == pytest.approx(0.015, abs=1e-4)


def test_a_link_at_rest_is_not_busy() -> None:
    with a_link(pace=Pace(1e9)) as link:
        sent = []
        for _ in range(4):
            sent.append(link.send([a_move(MIB)], Urgency.FETCH, "kv"))
            sent[-1].wait()
            time.sleep(0.005)
        assert link.busy_s == pytest.approx(sum(t.end_s - t.start_s for t in sent))


def test_an_urgent_transfer_waits_for_a_piece_and_not_for_a_slab() -> None:
    mover = Gated()
    with a_link(mover) as link:
        slab = link.send([a_move(12 * MIB)], Urgency.WEIGHTS, "weights")
        assert mover.begun.wait(10)
        stored = link.send([a_move(17)], Urgency.STORE, "store")
        fetched = link.send([a_move(19)], Urgency.FETCH, "kv")
        mover.gate.set()
        for transfer in (slab, stored, fetched):
            transfer.wait()
    assert mover.sizes == [4 * MIB, 19, 4 * MIB, 4 * MIB, 17]


def test_a_slow_link_takes_smaller_pieces() -> None:
    mover = Gated()
    mover.gate.set()
    with a_link(mover, pace=Pace(100e6)) as link:
        link.send([a_move(4 * MIB)], Urgency.WEIGHTS, "weights").wait()
    assert max(mover.sizes) / 100e6 < 0.01


def test_equal_urgency_is_first_come() -> None:
    mover = Gated()
    with a_link(mover, moves_at_once=1) as link:
        sent = [link.send([a_move(n)], Urgency.FETCH, "kv") for n in (1, 2, 3, 4, 5)]
        mover.gate.set()
        for transfer in sent:
            transfer.wait()
    assert mover.sizes == [1, 2, 3, 4, 5]


def test_what_has_to_wait_lets_others_pass() -> None:
    gate = Outcome("gate")
    with a_link() as link:
        waits = link.send([a_move()], Urgency.FETCH, "waits", after=[gate])
        link.send([a_move()], Urgency.STORE, "passes").wait()
        assert not waits.done
        gate.finish()
        waits.wait()


def test_a_transfer_begins_after_all_it_comes_after() -> None:
    first, second = Outcome("first"), Outcome("second")
    with a_link() as link:
        transfer = link.send([a_move()], Urgency.FETCH, "kv", after=[first, second])
        first.finish()
        time.sleep(0.01)
        assert not transfer.done
        second.finish()
        transfer.wait()


def test_a_chain_over_two_links_arrives_in_order() -> None:
    middle, end, begin = torch.zeros(MIB), torch.zeros(MIB), torch.rand(MIB)
    as_bytes = [t.view(torch.uint8) for t in (begin, middle, end)]
    with a_link(pace=Pace(1e9)) as one, a_link() as other:
        came = one.send([Move(as_bytes[1], as_bytes[0])], Urgency.WEIGHTS, "in")
        other.send([Move(as_bytes[2], as_bytes[1])], Urgency.WEIGHTS, "on", after=[came]).wait()
    assert torch.equal(end, begin)


def test_an_error_of_the_link_is_raised_by_wait_with_its_cause() -> None:
    with a_link(failing) as link:
        transfer = link.send([a_move(13)], Urgency.WEIGHTS, "weights 3 0")
        with pytest.raises(TransferFailedError, match=r"weights 3 0.*the cable is torn") as raised:
            transfer.wait()
        assert isinstance(raised.value.__cause__, OSError)
        assert transfer.done


def test_what_depends_on_a_failed_transfer_fails_and_does_not_begin() -> None:
    target = torch.zeros(16, dtype=torch.uint8)
    with a_link(failing) as link, a_link() as other:
        torn = link.send([a_move(13)], Urgency.WEIGHTS, "torn")
        middle = other.send([Move(target, filled(16))], Urgency.WEIGHTS, "middle", after=[torn])
        last = link.send([a_move()], Urgency.WEIGHTS, "last", after=[middle])
        with pytest.raises(TransferFailedError, match=r"last.*the cable is torn"):
            last.wait()
    assert not target.any()


def test_a_link_goes_on_after_an_error() -> None:
    with a_link(failing) as link:
        link.send([a_move(13)], Urgency.WEIGHTS, "torn")
        link.send([a_move()], Urgency.WEIGHTS, "whole").wait()


def test_nothing_to_move_is_over_when_what_it_comes_after_is() -> None:
    gate = Outcome("gate")
    with a_link() as link:
        transfer = link.send([], Urgency.FETCH, "nothing", after=[gate])
        assert not transfer.done
        gate.finish()
        assert transfer.done


def test_a_move_between_places_of_two_sizes_is_refused_where_it_is_sent() -> None:
    with a_link() as link, pytest.raises(AssertionError):
        link.send([Move(torch.zeros(4, dtype=torch.uint8), filled(5))], Urgency.FETCH, "kv")


def test_close_ends_the_threads_and_fails_what_is_left() -> None:
    gate = Outcome("gate")
    mover = Gated()
    before = threading.active_count()
    with a_link(mover, workers=3) as link:
        running = link.send([a_move(40 * MIB)], Urgency.WEIGHTS, "running")
        waiting = link.send([a_move()], Urgency.FETCH, "waiting", after=[gate])
        assert mover.begun.wait(10)
        threading.Timer(0.05, mover.gate.set).start()
    gate.finish()
    late = link.send([a_move()], Urgency.FETCH, "late")
    assert eventually(lambda: threading.active_count() == before)
    for transfer in (running, waiting, late):
        assert isinstance(transfer.error, LinkClosedError)


def test_close_after_an_error_leaves_it_as_it_is() -> None:
    with a_link(failing) as link:
        torn = link.send([a_move(13), a_move()], Urgency.WEIGHTS, "torn")
        assert eventually(lambda: torn.done)
    assert isinstance(torn.error, OSError)


def test_a_link_nobody_uses_has_no_thread() -> None:
    before = threading.active_count()
    with a_link():
        assert threading.active_count() == before


def test_a_delay_holds_a_transfer_back_and_others_overtake_it() -> None:
    delays = {"slow": 0.1, "quick": 0.0}
    target = torch.zeros(16, dtype=torch.uint8)
    with a_link(delay=delays.__getitem__) as link:
        slow = link.send([Move(target, filled(16))], Urgency.FETCH, "slow")
        link.send([a_move()], Urgency.STORE, "quick").wait()
        assert not slow.done
        assert not target.any()
        slow.wait()
        assert target.any()


def test_a_span_for_every_time_a_transfer_had_the_link() -> None:
    log, mover = LaneLog(), Gated()
    with a_link(mover, log=log) as link:
        slab = link.send([a_move(8 * MIB)], Urgency.WEIGHTS, "weights")
        assert mover.begun.wait(10)
        fetched = link.send([a_move(19)], Urgency.FETCH, "kv")
        mover.gate.set()
        slab.wait()
        fetched.wait()
    spans = log.drain()
    assert [(s.lane, s.name, s.nbytes) for s in spans] == [
        ("h2d", "weights", 4 * MIB),
        ("h2d", "kv", 19),
        ("h2d", "weights", 4 * MIB),
    ]
    assert all(one.end_s <= other.start_s for one, other in pairwise(spans))


def test_workers_share_a_transfer_and_keep_the_rate() -> None:
    names = set()

    def slow(move: Move, begin: int, nbytes: int) -> None:
        names.add(threading.current_thread().name)
        time.sleep(0.01)
        copy_memory(move, begin, nbytes)

    move = a_move(32 * MIB)
    with a_link(slow, workers=4, moves_at_once=1, pace=Pace(1e9)) as link:
        transfer = link.send([move], Urgency.WEIGHTS, "weights")
        transfer.wait()
        assert arrived(move)
        assert transfer.end_s - transfer.start_s >= 0.99 * move.nbytes / 1e9
        assert link.busy_s == pytest.approx(transfer.end_s - transfer.start_s, rel=0.01)
    assert len(names) > 1


def test_sends_from_many_threads_all_arrive() -> None:
    moves = [a_move(1000 + i) for i in range(400)]
    with a_link(workers=2) as link:

        def send(part: list[Move]) -> None:
            for move in part:
                link.send([move], Urgency.STORE, "store")

        threads = [threading.Thread(target=send, args=(moves[i::4],)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert eventually(lambda: link.moved_bytes == sum(move.nbytes for move in moves))
    assert all(map(arrived, moves))
