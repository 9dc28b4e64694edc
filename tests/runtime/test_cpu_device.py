"""The processor as the device: one memory, and a disk that reads straight into its slots."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tightrun.runtime.cpu_device import CpuDevice
from tightrun.runtime.device import Device, FileRange, Move, Urgency
from tightrun.runtime.memory import OutOfMemoryError

MIB = 1 << 20


@pytest.fixture
def device() -> Iterator[CpuDevice]:
    device = CpuDevice(16 * MIB)
    yield device
    device.close()


def test_it_is_a_device(device: CpuDevice) -> None:
    some: Device = device
    assert some.kind == "cpu"


def test_host_and_device_memory_are_one(device: CpuDevice) -> None:
    device.empty(10 * MIB, "slots")
    device.empty_host(6 * MIB, "kv")
    assert device.memory is device.host_memory
    with pytest.raises(OutOfMemoryError, match=r"memory: logits asks for 1 bytes beside slots"):
        device.empty(1, "logits")


def test_the_disk_reads_into_the_slots(device: CpuDevice, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    written = torch.randint(0, 256, (5 * MIB,), dtype=torch.uint8)
    path.write_bytes(written.numpy().tobytes())
    descriptor = os.open(path, os.O_RDONLY)
    slot = device.empty(5 * MIB, "slots")
    sent = device.disk.send(
        [Move(slot, FileRange(descriptor, 0, 5 * MIB))], Urgency.WEIGHTS, "weights 0 0"
    )
    device.wait(sent)
    os.close(descriptor)
    assert torch.equal(slot, written)
    (span,) = device.spans()
    assert (span.lane, span.nbytes) == ("disk", 5 * MIB)


def test_links_in_and_out_copy(device: CpuDevice) -> None:
    slab, slot = device.empty_host(100, "slabs").fill_(5), device.empty(100, "slots")
    came = device.link_in.send([Move(slot, slab)], Urgency.FETCH, "kv")
    slab_again = device.empty_host(100, "kv")
    device.settle(device.link_out.send([Move(slab_again, slot)], Urgency.STORE, "kv", [came]))
    assert torch.equal(slab_again, slab)


def test_a_point_of_computing_has_happened_when_it_is_marked(device: CpuDevice) -> None:
    device.compute("layer", lambda: None)
    assert device.mark().done
