"""The emulated accelerator: budgeted memory, real links, and the time of what is computed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from tightrun.runtime.device import Device, Move, Urgency
from tightrun.runtime.emulated_device import EmulatedDevice
from tightrun.runtime.happenings import TransferFailedError
from tightrun.runtime.memory import OutOfMemoryError

MIB = 1 << 20


@pytest.fixture
def device() -> Iterator[EmulatedDevice]:
    device = EmulatedDevice(8 * MIB, 16 * MIB, h2d=1e9, d2h=1e9)
    yield device
    device.close()


def test_it_is_a_device(device: EmulatedDevice) -> None:
    some: Device = device
    assert some.kind == "emulated"


def test_device_and_host_memory_have_budgets_of_their_own(device: EmulatedDevice) -> None:
    device.empty(8 * MIB, "slots")
    device.empty_host(16 * MIB, "slabs")
    with pytest.raises(OutOfMemoryError, match="device memory: kv asks for 1 bytes"):
        device.empty(1, "kv")
    with pytest.raises(OutOfMemoryError, match="host memory: kv asks for 1 bytes"):
        device.empty_host(1, "kv")


def test_bytes_go_in_and_out_again(device: EmulatedDevice) -> None:
    slab, slot = device.empty_host(3 * MIB, "slabs"), device.empty(3 * MIB, "slots")
    back = device.empty_host(3 * MIB, "kv")
    slab.copy_(torch.randint(0, 256, (3 * MIB,), dtype=torch.uint8))

    def in_device() -> None:
        slot.add_(1)

    sent = device.link_in.send([Move(slot, slab)], Urgency.WEIGHTS, "weights 0 0")
    device.wait(sent)
    device.compute("layer 0", in_device)
    stored = device.link_out.send([Move(back, slot)], Urgency.STORE, "kv 0", [device.mark()])
    device.settle(stored)
    assert torch.equal(back, slab + 1)


def test_computing_is_timed_and_waiting_inside_it_is_not(device: EmulatedDevice) -> None:
    slot, slab = device.empty(8 * MIB, "slots"), device.empty_host(8 * MIB, "slabs")
    slab.fill_(1)
    slot.fill_(0)
    sent = device.link_in.send([Move(slot, slab)], Urgency.WEIGHTS, "weights 0 0")
    device.compute("layer 0", lambda: device.wait(sent))
    assert sent.end_s - sent.start_s > 0.008
    assert 0 < device.computing_s < 0.5 * (sent.end_s - sent.start_s)


def test_lanes_have_their_names_and_spans_come_once(device: EmulatedDevice) -> None:
    slab, slot = device.empty_host(100, "slabs"), device.empty(100, "slots")
    begun = device.now()
    sent = device.link_in.send([Move(slot, slab)], Urgency.WEIGHTS, "weights 0 0")
    device.wait(sent)
    device.compute("layer 0", lambda: None)
    stored = device.link_out.send([Move(slab, slot)], Urgency.STORE, "store", [sent])
    device.settle(device.host.send(lambda: None, "spread", [stored]))
    spans = {span.lane: span for span in device.spans()}
    assert {lane: span.name for lane, span in spans.items()} == {
        "h2d": "weights 0 0", "d2h": "store", "compute": "layer 0", "cpu": "spread",
    }  # fmt: skip
    assert all(begun <= s.start_s <= s.end_s <= device.now() + 1e-3 for s in spans.values())
    assert (spans["h2d"].nbytes, spans["compute"].nbytes) == (100, 0)
    assert device.spans() == []


def test_a_failure_reaches_compute_over_lanes(device: EmulatedDevice) -> None:
    slab, slot = device.empty_host(100, "slabs"), device.empty(100, "slots")
    spread = device.host.send(lambda: [][0], "spread")
    sent = device.link_in.send([Move(slot, slab)], Urgency.FETCH, "kv 3", after=[spread])
    with pytest.raises(TransferFailedError, match="kv 3"):
        device.wait(sent)


def test_close_ends_every_thread_and_may_be_called_again() -> None:
    before = threading.active_count()
    device = EmulatedDevice(100, 100)
    slab, slot = device.empty_host(100, "slabs"), device.empty(100, "slots")
    device.link_in.send([Move(slot, slab)], Urgency.WEIGHTS, "in")
    device.link_out.send([Move(slab, slot)], Urgency.STORE, "out")
    device.host.send(lambda: None, "spread")
    device.close()
    device.close()
    assert threading.active_count() == before


def test_close_does_not_leave_anyone_waiting() -> None:
    device = EmulatedDevice(MIB, MIB, h2d=1e6)
    slab, slot = device.empty_host(MIB, "slabs"), device.empty(MIB, "slots")
    sent = device.link_in.send([Move(slot, slab)], Urgency.WEIGHTS, "in")
    spread = device.host.send(lambda: None, "spread", after=[sent])
    threading.Timer(0.05, device.close).start()
    with pytest.raises(TransferFailedError, match="closed"):
        device.settle(spread)


def stream_through(device: EmulatedDevice, layers: int, slots: int) -> list[int]:
    """Adds up layers that travel through a ring of slots; a slot is reused once it was added."""
    nbytes = 300_000
    slabs = [torch.full((nbytes,), layer + 1, dtype=torch.uint8) for layer in range(layers)]
    ring = [device.empty(nbytes, "slots") for _ in range(slots)]
    sums: list[int] = []
    sent = {}

    def send(layer: int) -> None:
        if layer < layers:
            move = Move(ring[layer % slots], slabs[layer])
            sent[layer] = device.link_in.send(
                [move], Urgency.WEIGHTS, f"weights {layer}", [device.mark()]
            )

    def add(layer: int) -> Callable[[], None]:
        return lambda: sums.append(int(ring[layer % slots].long().sum()) // nbytes)

    for layer in range(slots):
        send(layer)
    for layer in range(layers):
        device.wait(sent[layer])
        device.compute(f"layer {layer}", add(layer))
        ring[layer % slots].fill_(255)
        send(layer + slots)
    return sums


def test_random_delays_do_not_change_what_streams_through_two_slots() -> None:
    dice = random.Random(3)
    device = EmulatedDevice(MIB, MIB, h2d=2e9, delay=lambda _: dice.random() * 0.004)
    assert stream_through(device, layers=40, slots=2) == list(range(1, 41))
    device.close()


def test_a_long_run_keeps_the_pace_while_computing() -> None:
    """The link is at work behind the computing, not after it."""
    device = EmulatedDevice(32 * MIB, 32 * MIB, h2d=200e6)
    slab, slot = device.empty_host(8 * MIB, "slabs").fill_(1), device.empty(8 * MIB, "slots")
    slot.fill_(0)
    sent = device.link_in.send([Move(slot, slab)], Urgency.WEIGHTS, "weights")
    numbers = torch.rand(256, 256)

    def multiply() -> None:
        torch.mm(numbers, numbers)

    end = time.monotonic() + 10
    while not sent.done and time.monotonic() < end:
        device.compute("layer", multiply)
    device.settle(sent)
    assert device.link_in.busy_s == pytest.approx(8 * MIB / 200e6, rel=0.2)
    assert device.computing_s > 0.1 * device.link_in.busy_s
    device.close()


# --- memory that runs out ------------------------------------------------------------------------


def test_computing_takes_its_workspace_as_long_as_it_lasts(device: EmulatedDevice) -> None:
    device.empty(5 * MIB, "kv")
    seen: list[int] = []
    device.compute("layer 0", lambda: seen.append(device.memory.used), 3 * MIB)
    assert seen == [8 * MIB]
    assert device.memory.used == 5 * MIB
    assert device.memory.peak == 8 * MIB


def test_a_workspace_that_does_not_fit_is_refused_before_anything_is_computed(
    device: EmulatedDevice,
) -> None:
    device.empty(5 * MIB, "kv")
    done: list[str] = []
    with pytest.raises(OutOfMemoryError, match="workspace asks for 3,145,729 bytes"):
        device.compute("layer 0", lambda: done.append("layer"), 3 * MIB + 1)
    assert done == []
    device.compute("layer 0", lambda: done.append("layer"), 3 * MIB)
    assert done == ["layer"]


def test_faults_fail_what_they_say_before_it_or_at_its_end() -> None:
    wanted = {"arena kv", "host arena kv", "layer 0", "end of layer 1", "spread 0"}
    device = EmulatedDevice(8 * MIB, 8 * MIB, faults=lambda name, _: name in wanted)
    done: list[str] = []
    try:
        for empty in (device.empty, device.empty_host):
            with pytest.raises(OutOfMemoryError, match="made to fail"):
                empty(1, "kv")
        for layer in range(2):
            with pytest.raises(OutOfMemoryError, match="made to fail"):
                device.compute(f"layer {layer}", lambda at=layer: done.append(f"layer {at}"), 100)
        spread = device.host.send(lambda: done.append("spread"), "spread 0")
        with pytest.raises(TransferFailedError) as failed:
            device.settle(spread)
        assert isinstance(failed.value.__cause__, OutOfMemoryError)
        assert done == ["layer 1"]
        assert device.memory.used == device.host_memory.used == 0
    finally:
        device.close()
