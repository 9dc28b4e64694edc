"""The weight loader: every byte is there in time, whatever the order, the tiers and the delays."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runtime.streaming import StandInSlab, batch_seconds, host_slabs, streaming
from tightrun.runtime.cpu_device import CpuDevice
from tightrun.runtime.device import Device
from tightrun.runtime.emulated_device import EmulatedDevice
from tightrun.runtime.fake_device import FakeDevice
from tightrun.runtime.weights import ResidentWeights, StreamedWeights

KIB = 1024


def device(**options: Any) -> FakeDevice:
    """A second for a batch and stage, 16 KiB/s in, unless said otherwise."""
    durations = options.pop("durations", batch_seconds(1.0))
    return FakeDevice(durations, piece_bytes=4 * KIB, **({"h2d": 16.0 * KIB} | options))


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_every_byte_is_there_before_its_stage_computes(data: st.DataObject, tmp_path: Path) -> None:
    chance = random.Random(data.draw(st.integers(0, 2**32), label="seed"))
    kind = data.draw(st.sampled_from(["fake", "cpu"]), label="kind")
    stages = data.draw(st.integers(2, 9), label="stages")
    streamed = data.draw(
        st.sets(st.integers(0, stages - 2), min_size=1, max_size=stages - 1), label="streamed"
    )
    slabs = {
        layer: StandInSlab(
            layer,
            4 * KIB * chance.randint(1, 9),
            tmp_path / f"{layer}" if chance.random() < 0.5 else None,
        )
        for layer in streamed
    }
    fake = device(
        durations=lambda _: chance.choice([0.0, 0.1, 1.0, 5.0]),
        delay=lambda _: chance.choice([0.0, 0.0, 0.5, 10.0]),
        disk_read=chance.choice([4.0, 64.0]) * KIB,
        latency_s=chance.choice([0.0, 0.1]),
        runs_ahead=data.draw(st.booleans(), label="runs ahead"),
        kind=kind,
    )
    staging = chance.randint(1, 3) if kind == "fake" else chance.choice([0, 2])
    loop = streaming(fake, slabs, stages, slots=chance.randint(1, 4), staging=staging)
    computed = 0
    for order in data.draw(
        st.lists(
            st.sampled_from(["sliced", "static", "in order", "given up"]), min_size=1, max_size=5
        )
    ):
        batches = chance.choice([1, 2, 3, 8])
        if order == "sliced":
            loop.sliced(batches, [chance.choice([0, 5 * KIB, 100 * KIB]) for _ in range(batches)])
        elif order == "static":
            loop.static(batches)
        elif order == "in order":
            loop.in_order(batches)
        else:
            until = chance.randint(1, stages - 1)
            loop.sliced(batches, until=until)
            computed += batches * len([layer for layer in slabs if layer < until])
            continue
        computed += batches * len(slabs)
    fake.settle(fake.mark())
    assert loop.computed == computed


@pytest.mark.parametrize("kind", ["emulated", "cpu"])
@pytest.mark.parametrize("seed", range(6))
def test_threads_that_come_late_change_nothing(kind: str, seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    slabs = {
        layer: StandInSlab(
            layer,
            4 * KIB * chance.randint(1, 20),
            tmp_path / f"{layer}" if chance.random() < 0.5 else None,
        )
        for layer in range(0, 7, chance.randint(1, 2))
    }
    fast = 200.0 * KIB * KIB

    def delay(_: str) -> float:
        return chance.choice([0.0, 0.0, 0.002])

    if kind == "cpu":
        threads: Device = CpuDevice(KIB**2, delay=delay)
    else:
        threads = EmulatedDevice(KIB**2, KIB**2, fast, fast, fast / 2, delay=delay)
    loop = streaming(threads, slabs, 8, chance.randint(1, 3), staging=2 if kind != "cpu" else 0)
    try:
        for batches in (1, 3, 8):
            loop.sliced(batches)
        loop.static(batches=2)
        loop.in_order(batches=2)
    finally:
        threads.close()
    assert loop.computed == (1 + 3 + 8 + 2 + 2) * len(slabs)


@pytest.mark.parametrize("layers", [[0], [3], [0, 1, 2, 3, 4, 5], [1, 3, 5], [0, 5]])
def test_a_pass_sends_each_streamed_layer_once_wherever_they_lie(layers: list[int]) -> None:
    slabs = host_slabs(layers, 16 * KIB)
    loop = streaming(device(), slabs, stages=7)
    for _ in range(3):
        loop.sliced(batches=2)
    # Beside three passes, what was sent ahead for the fourth: at most a slab for each slot.
    assert 0 <= loop.weights.bytes_sent - 3 * len(layers) * 16 * KIB <= 2 * 16 * KIB


def test_the_device_holds_the_slots_and_nothing_else() -> None:
    slabs = {0: StandInSlab(0, 8 * KIB), 1: StandInSlab(1, 20 * KIB), 2: StandInSlab(2, 4 * KIB)}
    fake = device(memory_bytes=2 * 20 * KIB)
    loop = streaming(fake, slabs, stages=4, slots=2)
    loop.sliced(batches=2)
    assert {k: v for k, v in fake.memory.arenas.items() if v} == {"slots": 40 * KIB}
    assert fake.host_memory.arenas == {}


def test_the_views_are_prepared_once_for_every_slot() -> None:
    slabs = host_slabs(range(5), 4 * KIB)
    loop = streaming(device(), slabs, stages=6, slots=3)
    for _ in range(4):
        loop.sliced(batches=1)
    assert all(len(set(slab.slots)) == len(slab.slots) == 3 for slab in slabs.values())


def test_a_released_slot_is_poisoned_until_the_next_layer_comes() -> None:
    slabs = host_slabs([0], 4 * KIB)
    fake = device()
    loop = streaming(fake, slabs, stages=3, slots=1)
    loop.weights.begin_pass([0])
    loop.weights.wait(0)
    slot = slabs[0].bound
    assert torch.equal(slot, slabs[0].bytes)
    loop.weights.wait(1)
    assert slot.eq(0xFF).all()


def test_without_poison_a_released_slot_is_left_alone() -> None:
    slabs = host_slabs([0], 4 * KIB)
    weights = StreamedWeights(device(), slabs, stages=3, slots=1)
    weights.wait(0)
    weights.wait(1)
    assert torch.equal(slabs[0].bound, slabs[0].bytes)


def test_the_next_transfer_into_a_slot_begins_after_its_poison() -> None:
    fake = device(durations=lambda name: 3.0 if name == "poison" else 1.0, runs_ahead=True)
    loop = streaming(fake, host_slabs(range(4), 16 * KIB), stages=5, slots=2)
    loop.sliced(batches=2)
    fake.settle(fake.mark())
    spans = fake.spans()
    poisons = [span for span in spans if span.name == "poison"]
    third = next(span for span in spans if span.name == "weights 2 0")
    assert third.start_s >= poisons[0].end_s


def test_a_pass_that_is_given_up_leaves_the_next_one_what_it_needs() -> None:
    slabs = host_slabs(range(6), 16 * KIB)
    loop = streaming(device(), slabs, stages=7, slots=3)
    loop.sliced(batches=2, until=4)
    loop.sliced(batches=2)
    assert loop.computed == 2 * 4 + 2 * 6


def test_slabs_on_disk_go_through_host_memory(tmp_path: Path) -> None:
    slabs = {i: StandInSlab(i, 16 * KIB, tmp_path / f"{i}") for i in range(4)}
    fake = device(disk_read=64.0 * KIB)
    loop = streaming(fake, slabs, stages=5, staging=2)
    loop.sliced(batches=2)
    lanes = {span.lane for span in fake.spans() if span.name.startswith("weights 2 ")}
    assert lanes == {"disk", "h2d"}
    assert fake.host_memory.arenas == {"staging": 2 * 16 * KIB}
    assert loop.weights.disk_bytes >= loop.weights.bytes_sent >= 4 * 16 * KIB


def test_on_a_cpu_slabs_on_disk_are_read_straight_into_the_slot(tmp_path: Path) -> None:
    slabs = {i: StandInSlab(i, 16 * KIB, tmp_path / f"{i}") for i in range(4)}
    fake = device(kind="cpu")
    loop = streaming(fake, slabs, stages=5)
    loop.sliced(batches=2)
    lanes = {span.lane for span in fake.spans() if span.name.startswith("weights")}
    assert lanes == {"disk"}
    assert {k: v for k, v in fake.memory.arenas.items() if v} == {"slots": 2 * 16 * KIB}
    assert loop.weights.disk_bytes == loop.weights.bytes_sent


@pytest.mark.parametrize("staging", [0, 2])
def test_a_file_that_was_cut_short_ends_the_wait_with_its_error(
    tmp_path: Path, staging: int
) -> None:
    slabs = {i: StandInSlab(i, 16 * KIB, tmp_path / f"{i}") for i in range(3)}
    loop = streaming(device(kind="fake" if staging else "cpu"), slabs, stages=4, staging=staging)
    with (tmp_path / "1").open("r+b") as file:
        file.truncate(5 * KIB)
    with pytest.raises(OSError, match="cut short"):
        loop.sliced(batches=2)


def test_resident_weights_send_nothing() -> None:
    fake = device()
    loop = streaming(fake, host_slabs([0], 4 * KIB), stages=4)
    loop.weights = ResidentWeights()
    loop.slabs = {}
    loop.sliced(batches=2)
    loop.static(batches=2)
    loop.in_order(batches=2)
    assert {span.lane for span in fake.spans()} == {"compute"}
    assert loop.weights.bytes_sent == loop.weights.disk_bytes == 0
