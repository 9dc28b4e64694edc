"""The fake device: computed times, real bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tightrun.runtime.device import FileRange, LaneSpan, Move, Urgency
from tightrun.runtime.fake_device import FakeDevice, FakeLink
from tightrun.runtime.memory import OutOfMemoryError


def device(**options: Any) -> FakeDevice:
    """1,000 bytes/s each way in pieces of 100 bytes; a compute takes its name in seconds."""
    durations = options.pop("durations", lambda name: float(name) if name[:1].isdigit() else 0.0)
    rates = {"h2d": 1000.0, "d2h": 1000.0, "disk_read": 1000.0} | options
    return FakeDevice(durations, piece_bytes=100, **rates)


def move(nbytes: int) -> Move:
    source = torch.randint(0, 256, (nbytes,), dtype=torch.uint8)
    return Move(torch.zeros(nbytes, dtype=torch.uint8), source)


def nothing() -> None: ...


def test_a_transfer_takes_its_bytes_over_the_rate_and_the_latency_of_each_move() -> None:
    fake = device(latency_s=0.25)
    transfer = fake.link_in.send([move(500), move(1000)], Urgency.FETCH, "two")
    fake.settle(transfer)
    assert (transfer.start_s, transfer.end_s, transfer.nbytes) == (0.0, pytest.approx(2.0), 1500)
    assert fake.now() == pytest.approx(2.0)
    assert (fake.link_in.moved_bytes, fake.link_in.busy_s) == (1500, pytest.approx(2.0))


def test_the_bytes_land_with_the_clock_piece_by_piece() -> None:
    fake = device()
    copy = move(1000)
    fake.link_in.send([copy], Urgency.WEIGHTS, "copy")
    fake.compute("0.55", nothing)
    assert torch.equal(copy.target[:500], copy.source[:500])
    assert not copy.target[500:].any()


def test_computing_goes_on_beside_the_links() -> None:
    fake = device()
    transfer = fake.link_in.send([move(1000)], Urgency.WEIGHTS, "copy")
    fake.compute("0.75", nothing)
    assert not transfer.done
    fake.wait(transfer)
    assert fake.now() == pytest.approx(1.0)
    fake.compute("0.5", nothing)
    assert fake.now() == pytest.approx(1.5)
    assert fake.computing_s == pytest.approx(1.25)


def test_an_urgent_transfer_overtakes_a_long_one_at_the_border_of_pieces() -> None:
    fake = device()
    long = fake.link_in.send([move(1000)], Urgency.WEIGHTS, "long")
    fake.compute("0.25", nothing)
    urgent = fake.link_in.send([move(200)], Urgency.FETCH, "urgent")
    fake.settle(long, urgent)
    assert (urgent.start_s, urgent.end_s) == (pytest.approx(0.3), pytest.approx(0.5))
    assert (long.start_s, long.end_s) == (0.0, pytest.approx(1.2))


def test_transfers_of_one_urgency_go_in_the_order_they_came() -> None:
    fake = device()
    sent = [fake.link_in.send([move(100)], Urgency.STORE, str(i)) for i in range(3)]
    fake.settle(*sent)
    assert [span.name for span in fake.spans()] == ["0", "1", "2"]


def test_a_transfer_begins_when_what_it_comes_after_is_over_on_another_link() -> None:
    fake = device()
    read = fake.disk.send([move(500)], Urgency.WEIGHTS, "read")
    second = fake.link_in.send([move(100)], Urgency.WEIGHTS, "second", after=[read])
    fake.settle(second)
    assert second.start_s == pytest.approx(0.5)


def test_a_transfer_that_may_not_begin_yet_holds_nobody_up() -> None:
    fake = device()
    read = fake.disk.send([move(500)], Urgency.WEIGHTS, "read")
    held = fake.link_in.send([move(100)], Urgency.FETCH, "held", after=[read])
    other = fake.link_in.send([move(100)], Urgency.STORE, "other")
    fake.settle(held, other)
    assert other.end_s == pytest.approx(0.1)
    assert held.start_s == pytest.approx(0.5)


def test_a_delay_holds_back_the_end_of_a_transfer_and_not_the_link() -> None:
    fake = device(delay=lambda name: 3.0 if name == "slow" else 0.0)
    slow = fake.link_in.send([move(100)], Urgency.WEIGHTS, "slow")
    other = fake.link_in.send([move(100)], Urgency.WEIGHTS, "other")
    fake.settle(slow, other)
    assert (slow.end_s, other.end_s) == (pytest.approx(3.1), pytest.approx(0.2))


def test_host_work_is_done_in_order_even_where_the_later_could_begin() -> None:
    fake = device()
    done: list[str] = []
    copy = fake.link_in.send([move(1000)], Urgency.FETCH, "copy")
    fake.host.send(lambda: done.append("first"), "1.0", after=[copy])
    last = fake.host.send(lambda: done.append("second"), "0.5")
    fake.settle(last)
    assert done == ["first", "second"]
    assert fake.now() == pytest.approx(2.5)
    assert fake.host.busy_s == pytest.approx(1.5)


def test_a_device_that_runs_ahead_computes_later_than_it_is_told_but_after_its_waits() -> None:
    fake = device(runs_ahead=True)
    done: list[str] = []
    copy = fake.link_in.send([move(1000)], Urgency.WEIGHTS, "copy")
    fake.wait(copy)
    fake.compute("0.5", lambda: done.append("computed"))
    over = fake.mark()
    assert (fake.now(), done, over.done) == (0.0, [], False)
    fake.settle(over)
    assert (fake.now(), done) == (pytest.approx(1.5), ["computed"])


def test_a_mark_of_a_device_that_runs_ahead_holds_a_transfer_until_the_computing_is_over() -> None:
    fake = device(runs_ahead=True)
    fake.compute("2", nothing)
    copy = fake.link_in.send([move(100)], Urgency.WEIGHTS, "copy", after=[fake.mark()])
    fake.settle(copy)
    assert copy.start_s == pytest.approx(2.0)


def test_the_spans_are_what_the_lanes_did_since_the_last_call() -> None:
    fake = device()
    copy = fake.link_out.send([move(100)], Urgency.STORE, "copy")
    fake.compute("0.5", nothing)
    fake.mark()
    fake.settle(copy)
    assert fake.spans() == [
        LaneSpan("d2h", "copy", 0.0, pytest.approx(0.1), 100),
        LaneSpan("compute", "0.5", 0.0, 0.5, 0),
    ]
    assert fake.spans() == []


def test_a_link_may_change_its_speed_in_mid_run() -> None:
    fake = device()
    assert isinstance(fake.link_in, FakeLink)
    fake.link_in.bytes_per_s = 500.0
    fake.settle(fake.link_in.send([move(1000)], Urgency.FETCH, "copy"))
    assert fake.now() == pytest.approx(2.0)


def test_bytes_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "bytes"
    file.write_bytes(bytes(range(256)) * 40)
    fake = device()
    target = torch.zeros(300, dtype=torch.uint8)
    source = FileRange(os.open(file, os.O_RDONLY), 4096, 300)
    fake.settle(fake.disk.send([Move(target, source)], Urgency.WEIGHTS, "read"))
    assert target.tolist() == [i % 256 for i in range(300)]


def test_the_error_of_a_link_is_raised_by_who_waits_for_it_or_for_what_comes_after(
    tmp_path: Path,
) -> None:
    (tmp_path / "short").write_bytes(b"1234")
    fake = device()
    source = FileRange(os.open(tmp_path / "short", os.O_RDONLY), 0, 100)
    target = torch.zeros(100, dtype=torch.uint8)
    read = fake.disk.send([Move(target, source)], Urgency.WEIGHTS, "read")
    after = fake.link_in.send([move(100)], Urgency.WEIGHTS, "after", after=[read])
    fake.compute("5", nothing)
    with pytest.raises(OSError, match="cut short"):
        fake.wait(read)
    with pytest.raises(OSError, match="cut short"):
        fake.settle(after)


def test_the_error_of_work_is_raised_where_it_is_computed_and_over_with() -> None:
    fake, done = device(), []
    with pytest.raises(ZeroDivisionError):
        fake.compute("1", lambda: print(1 / 0))
    fake.compute("1", lambda: done.append("next"))
    assert done == ["next"]


def test_the_error_of_work_done_ahead_is_raised_by_the_next_mark() -> None:
    fake = device(runs_ahead=True)
    fake.compute("1", lambda: print(1 / 0))
    fake.compute("1", nothing)
    with pytest.raises(ZeroDivisionError):
        fake.settle(fake.mark())


def test_the_memories_have_their_budgets_and_their_alignment() -> None:
    fake = device(memory_bytes=1000, host_bytes=500)
    assert fake.empty(600, "slots").data_ptr() % 4096 == 0
    assert fake.empty_host(500, "staging").numel() == 500
    assert (fake.memory.arenas, fake.host_memory.arenas) == ({"slots": 600}, {"staging": 500})
    with pytest.raises(OutOfMemoryError):
        fake.empty(401, "kv")


def test_a_cpu_has_one_memory() -> None:
    fake = device(kind="cpu", memory_bytes=1000)
    fake.empty_host(600, "staging")
    assert fake.memory.free == 400


def test_on_the_meta_device_only_the_time_passes() -> None:
    fake = device(torch_device=torch.device("meta"))
    slot = fake.empty(10**6, "slots")
    fake.settle(fake.link_in.send([Move(slot, slot)], Urgency.WEIGHTS, "copy"))
    assert fake.now() == pytest.approx(1000.0)
