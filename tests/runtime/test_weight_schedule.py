"""What slices are for: the link in never rests while there is room, and nobody waits for more.

Seconds of the fake clock; a batch computes one second in every stage, the head too.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.streaming import Loop, StandInSlab, batch_seconds, host_slabs, streaming
from tightrun.runtime.device import LaneSpan
from tightrun.runtime.fake_device import FakeDevice

SLAB = 64 * 1024


def device(transfer_s: float, **options: Any) -> FakeDevice:
    """A link that takes `transfer_s` seconds for a slab."""
    rates = {"h2d": SLAB / transfer_s} | options
    return FakeDevice(batch_seconds(1.0), piece_bytes=SLAB // 64, **rates)


def disk_slabs(folder: Path, layers: range) -> dict[int, StandInSlab]:
    return {layer: StandInSlab(layer, SLAB, folder / f"{layer}") for layer in layers}


def pass_seconds(loop: Loop, order: str, batches: int) -> float:
    """Of a pass with the ring warm: the first pass waits for its first layer."""
    getattr(loop, order)(batches)
    begun = loop.device.now()
    getattr(loop, order)(batches)
    return loop.device.now() - begun


@pytest.mark.parametrize("batches", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("transfer_s", [3.0, 8.0])
def test_a_layer_takes_the_longer_of_its_batches_and_its_transfer(
    batches: int, transfer_s: float
) -> None:
    layers = 24
    loop = streaming(device(transfer_s), host_slabs(range(layers), SLAB), layers + 1)
    expected = max((layers + 1) * batches, layers * transfer_s)
    assert pass_seconds(loop, "sliced", batches) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("batches", [1, 2, 4, 8, 16])
def test_the_static_order_takes_the_transfer_and_then_all_batches_but_one(batches: int) -> None:
    layers, transfer_s = 24, 8.0
    loop = streaming(device(transfer_s), host_slabs(range(layers), SLAB), layers + 1)
    # In the head, too, a layer is sent: the next pass's second, whose slot has just become free.
    expected = layers * (transfer_s + batches - 1) + batches
    assert pass_seconds(loop, "static", batches) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("batches", [1, 2, 8])
def test_in_order_every_batch_waits_for_every_transfer(batches: int) -> None:
    layers, transfer_s = 6, 8.0
    loop = streaming(device(transfer_s), host_slabs(range(layers), SLAB), layers + 1)
    loop.in_order(batches)
    assert loop.device.now() == pytest.approx(batches * (layers * (transfer_s + 1) + 1))


def test_in_order_nothing_is_sent_beside_computing_even_if_the_caller_runs_ahead() -> None:
    loop = streaming(device(8.0, runs_ahead=True), host_slabs(range(6), SLAB), 7)
    loop.in_order(batches=1)
    loop.device.settle(loop.device.mark())
    assert loop.device.now() == pytest.approx(6 * (8.0 + 1) + 1)


@pytest.mark.parametrize("batches", [2, 8])
@pytest.mark.parametrize("fetch_s", [0.25, 0.75])
def test_kv_and_weights_share_the_link_without_a_rest(batches: int, fetch_s: float) -> None:
    layers, transfer_s = 24, 4.0
    kv_bytes = int(SLAB / transfer_s * fetch_s)
    loop = streaming(
        device(transfer_s), host_slabs(range(layers), SLAB), layers + 1, 2, 0, kv_bytes
    )
    stages = layers + 1
    expected = max(stages * batches, layers * transfer_s + stages * batches * fetch_s)
    assert pass_seconds(loop, "sliced", batches) == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("batches", [2, 4, 8, 16])
def test_a_link_that_binds_has_a_slice_of_one_size_behind_every_batch(batches: int) -> None:
    layers = 6
    loop = streaming(device(1.5 * batches), host_slabs(range(layers), SLAB), layers + 1)
    loop.sliced(batches)
    spans = loop.device.spans()
    begun = {span.name: span.start_s for span in spans if span.lane == "compute"}
    for layer in range(2, layers):  # 0 and 1 are also sent for the next pass
        slices = [span for span in spans if span.name.startswith(f"weights {layer} ")]
        assert len(slices) == batches
        assert max(span.nbytes for span in slices) - min(span.nbytes for span in slices) <= 256
        for batch, span in enumerate(slices):
            assert span.start_s >= begun[f"compute {layer - 1} {batch}"]


@pytest.mark.parametrize("batches", [1, 2, 8])
@pytest.mark.parametrize("load", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    ("layers", "every", "slots"),
    [(12, 1, 2), (12, 2, 2), (13, 2, 3), (61, 1, 3), (61, 2, 3), (12, 5, 2), (12, 12, 1)],
)
def test_the_link_never_rests_while_a_slot_is_free(
    layers: int, every: int, slots: int, load: float, batches: int
) -> None:
    """`load`: the transfer of a layer over the computing from one streamed layer to the next."""
    transfer_s = load * batches * every
    loop = streaming(
        device(transfer_s), host_slabs(range(0, layers, every), SLAB), layers + 1, slots
    )
    for _ in range(3):
        loop.sliced(batches, rooms=[round(SLAB / transfer_s)] * batches)
    pass_s = loop.device.now() / 3
    assert longest_rest(loop, "h2d", slots) <= 0.01 * pass_s


@pytest.mark.parametrize("batches", [1, 2, 8])
def test_without_knowing_the_link_it_rests_for_less_than_a_batch(batches: int) -> None:
    layers, every = 12, 2
    loop = streaming(device(batches * every / 2), host_slabs(range(0, layers, every), SLAB), 13)
    for _ in range(3):
        loop.sliced(batches)
    assert longest_rest(loop, "h2d", slots=2) < 1.0


def test_resident_layers_in_a_row_are_used_for_every_slot_that_is_free() -> None:
    """Six streamed layers after six resident ones: two slots fill while those compute."""
    loop = streaming(device(transfer_s=6.0), host_slabs(range(6, 12), SLAB), 13)
    loop.sliced(batches=2)
    waits = [end for stage, end in loop.stage_ends if stage in (5, 6, 7)]
    assert waits == pytest.approx([12.0, 14.0, 16.0], abs=0.1)


@pytest.mark.parametrize("binding", ["disk", "link", "compute"])
@pytest.mark.parametrize("staging", [2, 3])
def test_through_host_memory_a_layer_takes_the_longest_of_its_ways(
    tmp_path: Path, binding: str, staging: int
) -> None:
    layers, batches = 12, 4
    read_s = 9.0 if binding == "disk" else 3.0
    transfer_s = 9.0 if binding == "link" else 2.0
    fake = device(transfer_s, disk_read=SLAB / read_s)
    loop = streaming(fake, disk_slabs(tmp_path, range(layers)), layers + 1, 2, staging)
    expected = max(layers * max(read_s, transfer_s), (layers + 1) * batches)
    assert pass_seconds(loop, "sliced", batches) == pytest.approx(expected, rel=0.02)


def test_the_disk_never_rests_while_it_binds(tmp_path: Path) -> None:
    """Two staging slots; the disk is slower than the link, and so reads on beside it."""
    fake = device(transfer_s=3.0, disk_read=SLAB / 6.0)
    loop = streaming(fake, disk_slabs(tmp_path, range(12)), 13, 2, staging=2)
    for _ in range(3):
        loop.sliced(batches=4)
    spans = [span for span in fake.spans() if span.lane == "disk"]
    busy = sum(span.end_s - span.start_s for span in spans)
    assert busy >= 0.99 * (spans[-1].end_s - spans[0].start_s)


@pytest.mark.parametrize("read_s", [3.0, 9.0])
def test_on_a_cpu_a_layer_takes_the_longer_of_its_batches_and_its_reads(
    tmp_path: Path, read_s: float
) -> None:
    layers, batches = 12, 4
    fake = device(1.0, disk_read=SLAB / read_s, kind="cpu")
    loop = streaming(fake, disk_slabs(tmp_path, range(layers)), layers + 1)
    expected = max(layers * read_s, (layers + 1) * batches)
    assert pass_seconds(loop, "sliced", batches) == pytest.approx(expected, rel=0.02)


def longest_rest(loop: Loop, lane: str, slots: int) -> float:
    """The longest time the lane did nothing although a slot had room for more weights."""
    spans = sorted(
        (span for span in loop.device.spans() if span.lane == lane), key=lambda span: span.start_s
    )
    over = [end for stage, end in loop.stage_ends if stage in loop.slabs]
    rests = []
    for span, following in pairwise(spans):
        complete = _slabs_complete(spans, span.end_s)
        # With all slots full, the next may come when the first of their layers is over.
        free = over[complete - slots] if complete >= slots else 0.0
        rests.append(following.start_s - max(span.end_s, free))
    return max(rests)


def _slabs_complete(spans: list[LaneSpan], by: float) -> int:
    return sum(span.nbytes for span in spans if span.end_s <= by) // SLAB
