"""Batches held to fewer rows, and sequences that run alone or are dropped."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.simulated_scheduler import Simulation, jobs, numbered, waiting


@given(job=jobs, held=st.integers(1, 12), blocks=st.integers(10, 30))
@settings(deadline=None, max_examples=60)
def test_held_batches_are_no_wider_and_everybody_gets_on(
    job: list[tuple[int, int, int, int]], held: int, blocks: int
) -> None:
    simulation = Simulation(4, blocks, 16)
    simulation.scheduler.hold(held)
    simulation.run(
        [
            waiting(row, numbered(length, 1000 * row), room, side=side, n=n)
            for row, (length, room, side, n) in enumerate(job)
        ]
    )
    assert len(simulation.finished) == sum(n for *_, n in job)
    for block in simulation.passes:
        assert all(sum(tokens for _, tokens in batch) <= held for batch in block)


def test_a_held_lane_makes_as_many_batches_as_it_takes() -> None:
    simulation = Simulation(batch_size=4, prefill_tokens=64)
    for row in range(4):
        simulation.scheduler.add(waiting(row, numbered(6, 100 * row), 3))
    simulation.scheduler.hold(12)
    [first, second] = simulation.scheduler.next_block()
    assert [s.sequence.request.row_index for s in first] == [0, 1]
    assert [s.sequence.request.row_index for s in second] == [2, 3]


def test_what_is_as_wide_as_planned_is_not_held() -> None:
    simulation = Simulation(batch_size=4, prefill_tokens=64)
    for row in range(4):
        simulation.scheduler.add(waiting(row, numbered(6, 100 * row), 3))
    simulation.scheduler.hold(12)
    simulation.scheduler.hold(simulation.scheduler.plan.widest_batch)
    assert len(simulation.scheduler.next_block()) == 1


def test_who_is_to_be_alone_is_alone() -> None:
    simulation = Simulation(batch_size=4)
    sequences = [waiting(row, numbered(3, 100 * row), 3) for row in range(4)]
    for one in sequences:
        simulation.scheduler.add(one)
    simulation.scheduler.alone = sequences[2]
    [[segment]] = simulation.scheduler.next_block()
    assert segment.sequence is sequences[2]


def test_who_is_dropped_gives_everything_back_and_leaves_its_samples_to_go_on() -> None:
    simulation = Simulation(batch_size=2)
    running, other = waiting(0, numbered(5), 3, n=2), waiting(1, numbered(5, 200), 3)
    queued = waiting(2, numbered(5, 300), 3)
    for one in (running, other, queued):
        simulation.scheduler.add(one)
    simulation.scheduler.next_block()
    simulation.scheduler.drop(running)
    simulation.scheduler.drop(queued)
    assert running.place < 0
    while not simulation.scheduler.idle:
        simulation.step()
    assert {(s.request.row_index, s.sample) for s in simulation.finished} == {(0, 1), (1, 0)}
    assert simulation.cache.pool.used == 0
