"""A real card: bytes arrive in order, memory is exact, and nothing waits for the whole device."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tightrun.runtime.cuda_device import CudaDevice
from tightrun.runtime.device import FileRange, Move, Urgency
from tightrun.runtime.memory import OutOfMemoryError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
MIB = 1 << 20


@pytest.fixture
def device() -> Iterator[CudaDevice]:
    device = CudaDevice("cuda:0", 1024 * MIB, 1024 * MIB)
    yield device
    device.close()


def fill(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.copy_(torch.randint(0, 256, tensor.shape, dtype=torch.uint8))


def long_work(device: CudaDevice, seconds: float = 0.05) -> Callable[[], None]:
    numbers = torch.rand(4096, 4096, device=device.torch)
    torch.mm(numbers, numbers)  # the first product also makes the library ready
    device.settle(device.mark())
    begun = time.perf_counter()
    torch.mm(numbers, numbers)
    device.settle(device.mark())
    times = max(1, int(seconds / (time.perf_counter() - begun)))

    def work() -> None:
        for _ in range(times):
            torch.mm(numbers, numbers)

    return work


def test_memory_is_aligned_and_budgeted(device: CudaDevice) -> None:
    for nbytes in (1, 5000, 3 * MIB + 1):
        taken = device.empty(nbytes, "slots")
        assert (taken.numel(), taken.data_ptr() % 4096) == (nbytes, 0)
    assert device.memory.used == 3 * MIB + 5002
    with pytest.raises(OutOfMemoryError):
        device.empty(1024 * MIB, "kv")


def test_host_memory_is_pinned_and_exact(device: CudaDevice) -> None:
    taken = device.empty_host(3 * MIB + 5, "kv")
    assert (taken.numel(), taken.is_pinned()) == (3 * MIB + 5, True)
    assert device.host_memory.used == 3 * MIB + 5


def test_a_copy_from_pinned_memory_runs_while_the_card_computes(device: CudaDevice) -> None:
    slab, slot = fill(device.empty_host(256 * MIB, "slabs")), device.empty(256 * MIB, "slots")
    device.compute("layer 0", long_work(device, 0.2))
    sent = device.link_in.send([Move(slot, slab)], Urgency.WEIGHTS, "weights 0 0")
    mark = device.mark()
    device.settle(sent)
    assert not mark.done
    device.settle(mark)
    assert torch.equal(slot.cpu(), slab)


def test_sending_does_not_wait_for_the_copy(device: CudaDevice) -> None:
    slab, slot = device.empty_host(512 * MIB, "slabs"), device.empty(512 * MIB, "slots")
    device.settle(device.link_in.send([Move(slot, slab)], Urgency.WEIGHTS, "the first"))
    begun = time.perf_counter()
    sent = device.link_in.send([Move(slot, slab)], Urgency.WEIGHTS, "weights 0 0")
    sending_s = time.perf_counter() - begun
    device.settle(sent)
    assert sending_s < 0.5 * (sent.end_s - sent.start_s)


def test_both_ways_in_order_through_compute(device: CudaDevice) -> None:
    slab, slot = fill(device.empty_host(64 * MIB, "slabs")), device.empty(64 * MIB, "slots")
    back = device.empty_host(64 * MIB, "kv")
    sent = device.link_in.send([Move(slot, slab)], Urgency.WEIGHTS, "in", [device.mark()])

    def add() -> None:
        slot.add_(1)

    device.wait(sent)
    device.compute("layer 0", add)
    stored = device.link_out.send([Move(back, slot)], Urgency.STORE, "out", [device.mark()])
    device.settle(stored)
    assert torch.equal(back, slab + 1)
    assert stored.start_s >= sent.end_s


def test_disk_to_card_through_a_staging_slot(device: CudaDevice, tmp_path: Path) -> None:
    written = torch.randint(0, 256, (4, 8 * MIB), dtype=torch.uint8)
    (tmp_path / "weights").write_bytes(written.numpy().tobytes())
    descriptor = os.open(tmp_path / "weights", os.O_RDONLY)
    staging = device.empty_host(8 * MIB, "staging")
    slots = [device.empty(8 * MIB, "slots") for _ in range(4)]
    free = device.mark()
    for layer, slot in enumerate(slots):
        part = FileRange(descriptor, layer * 8 * MIB, 8 * MIB)
        read = device.disk.send([Move(staging, part)], Urgency.WEIGHTS, "read", [free])
        free = device.link_in.send([Move(slot, staging)], Urgency.WEIGHTS, "in", [read])
    device.settle(free)
    os.close(descriptor)
    assert all(torch.equal(s.cpu(), w) for s, w in zip(slots, written, strict=True))


def test_times_are_on_the_hosts_clock(device: CudaDevice) -> None:
    work = long_work(device)
    begun = device.now()
    device.compute("layer 0", work)
    device.settle(device.mark())
    ended = device.now()
    (span,) = [span for span in device.spans() if span.lane == "compute"]
    assert begun - 1e-3 <= span.start_s <= span.end_s <= ended + 1e-3
    assert device.computing_s == pytest.approx(ended - begun, rel=0.2)
