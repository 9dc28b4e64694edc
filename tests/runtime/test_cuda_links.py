"""The order of things on CUDA's streams, shown on a stand-in for them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tests.runtime.stand_in_cuda import StandInCuda, StandInStream
from tightrun.runtime.cuda_device import CudaDevice
from tightrun.runtime.cuda_events import CudaMark, CudaTransfer
from tightrun.runtime.cuda_links import CudaLink, pieces
from tightrun.runtime.device import Device, FileRange, Happening, Move, Urgency
from tightrun.runtime.happenings import LinkClosedError, Outcome, TransferFailedError
from tightrun.runtime.page_memory import map_pages

MIB = 1 << 20


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> StandInCuda:
    return StandInCuda(monkeypatch)


@pytest.fixture
def device(cuda: StandInCuda) -> Iterator[CudaDevice]:
    assert cuda
    device = CudaDevice("cuda:0", MIB, MIB)
    yield device
    device.close()


def stream_of(link: Any) -> StandInStream:
    assert isinstance(link, CudaLink)
    return cast(StandInStream, link.stream)


def a_move(nbytes: int = 100) -> Move:
    return Move(torch.zeros(nbytes, dtype=torch.uint8), torch.ones(nbytes, dtype=torch.uint8))


def send(device: CudaDevice, name: str, *after: Happening, move: Move | None = None) -> Any:
    return device.link_in.send([move or a_move()], Urgency.WEIGHTS, name, after)


def test_it_is_a_device(device: CudaDevice) -> None:
    some: Device = device
    assert some.kind == "cuda"


def test_a_copy_stands_between_its_events_after_what_it_waits_for(device: CudaDevice) -> None:
    mark, move = device.mark(), a_move()
    assert isinstance(mark, CudaMark)
    sent = send(device, "weights", mark, move=move)
    assert stream_of(device.link_in).log == [
        ("wait", mark.event), ("record", sent.begin), ("record", sent.end)
    ]  # fmt: skip
    assert move.target.all()


def test_compute_waits_for_a_copy_on_its_stream_and_the_host_does_not(
    device: CudaDevice, cuda: StandInCuda
) -> None:
    stream_of(device.link_in).hold()
    sent = send(device, "weights")
    device.wait(sent)
    assert not sent.done
    assert cuda.compute.log == [("wait", sent.end)]
    stream_of(device.link_in).let_go()


def test_a_copy_after_a_threads_work_is_enqueued_when_that_ends_and_others_pass(
    device: CudaDevice,
) -> None:
    gate = Outcome("disk")
    waits = send(device, "waits", gate)
    then = send(device, "then", waits)
    passes = send(device, "passes")
    gate.finish()
    ends = {waits.end: "waits", then.end: "then", passes.end: "passes"}
    order = [ends[event] for what, event in stream_of(device.link_in).log if event in ends]
    assert order == ["passes", "waits", "waits", "then"]  # the second is what `then` waits for
    assert waits.done


def test_a_wait_for_a_copy_that_is_not_enqueued_yet_lasts_until_it_is(
    device: CudaDevice, cuda: StandInCuda
) -> None:
    gate = Outcome("disk")
    sent = send(device, "weights", gate)
    threading.Timer(0.02, gate.finish).start()
    device.wait(sent)
    assert ("wait", sent.end) in cuda.compute.log


def test_a_copy_after_what_failed_is_never_enqueued_and_raises(device: CudaDevice) -> None:
    gate = Outcome("disk")
    sent = send(device, "weights 3 0", gate)
    last = send(device, "last", sent)
    gate.finish(OSError(5, "the disk is torn"))
    assert stream_of(device.link_in).log == []
    for raises in (device.wait, device.settle):
        with pytest.raises(TransferFailedError, match=r"last.*torn"):
            raises(last)


def test_an_error_of_cuda_is_raised_by_settle(
    device: CudaDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: invalid argument")

    monkeypatch.setattr(torch.Tensor, "copy_", refuse)
    with pytest.raises(TransferFailedError, match=r"weights.*invalid argument"):
        device.settle(send(device, "weights"))


def test_a_disk_read_into_a_staging_slot_begins_when_its_copy_is_over(
    device: CudaDevice, tmp_path: Path
) -> None:
    (tmp_path / "weights").write_bytes(b"\x07" * 4096)
    descriptor = os.open(tmp_path / "weights", os.O_RDONLY)
    staging, slot = map_pages(4096), map_pages(4096)
    stream_of(device.link_in).hold()
    sent = send(device, "weights 0 0", move=Move(slot, staging))
    read = device.disk.send(
        [Move(staging, FileRange(descriptor, 0, 4096))], Urgency.WEIGHTS, "weights 1 0", [sent]
    )
    spread = device.host.send(lambda: None, "spread", [sent])
    assert not read.done
    assert not staging.any()
    stream_of(device.link_in).let_go()
    device.settle(read, spread)
    os.close(descriptor)
    assert (staging == 7).all()


def test_settle_times_the_lanes(device: CudaDevice) -> None:
    begun = device.now()
    device.compute("layer 0", lambda: None)
    sent = send(device, "weights")
    device.settle(sent, device.mark())
    assert begun <= sent.start_s <= sent.end_s <= device.now()
    assert device.computing_s > 0
    assert (device.link_in.moved_bytes, device.link_in.busy_s) == (100, sent.end_s - sent.start_s)
    assert {(s.lane, s.name, s.nbytes) for s in device.spans()} == {
        ("compute", "layer 0", 0), ("h2d", "weights", 100)
    }  # fmt: skip


def test_what_is_not_over_is_not_in_the_spans(device: CudaDevice) -> None:
    stream_of(device.link_in).hold()
    send(device, "weights")
    assert device.spans() == []
    stream_of(device.link_in).let_go()
    assert [span.name for span in device.spans()] == ["weights"]


def test_waiting_inside_compute_ends_a_part_of_it(device: CudaDevice, cuda: StandInCuda) -> None:
    sent = send(device, "weights")
    device.compute("layer 0", lambda: device.wait(sent))
    assert [what for what, _ in cuda.compute.log] == [
        "record",
        "record",
        "wait",
        "record",
        "record",
    ]
    assert [span.name for span in device.spans() if span.lane == "compute"] == ["layer 0"] * 2


def test_close_fails_what_is_not_enqueued_and_ends_the_threads(cuda: StandInCuda) -> None:
    before = threading.active_count()
    device = CudaDevice("cuda:0", MIB, MIB)
    device.empty_host(MIB, "slabs")
    gate = Outcome("disk")
    sent = send(device, "weights", gate)
    device.host.send(lambda: None, "spread", [device.mark()]).wait()  # type: ignore[attr-defined]
    device.close()
    gate.finish()
    assert isinstance(sent, CudaTransfer)
    assert isinstance(sent.error, LinkClosedError)
    assert threading.active_count() == before
    assert not cuda.runtime.registered


def test_pieces_are_small_and_cross_no_seam() -> None:
    move = a_move(1000)
    assert isinstance(move.source, torch.Tensor)
    seams = sorted([move.source.data_ptr() + 250, move.target.data_ptr() + 700])
    cut = list(pieces([move], seams, 300))
    assert [target.numel() for target, _ in cut] == [250, 300, 150, 300]
    assert torch.equal(torch.cat([source for _, source in cut]), move.source)
