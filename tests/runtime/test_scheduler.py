"""Who computes what in a pass: everybody gets on, nothing is computed twice without need."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.simulated_scheduler import Simulation, jobs, numbered, waiting
from tightrun.policies.foresight import Sizes
from tightrun.runtime.prefix import SHORTEST


@settings(deadline=None, max_examples=150)
@given(
    job=jobs,
    shared=st.sampled_from([0, 0, SHORTEST, SHORTEST + 3]),
    batch_size=st.integers(1, 6),
    blocks=st.integers(10, 30),
    prefill_tokens=st.integers(1, 40),
)
def test_every_sequence_is_finished_whatever_the_sizes(
    job: list[tuple[int, int, int, int]],
    shared: int,
    batch_size: int,
    blocks: int,
    prefill_tokens: int,
) -> None:
    simulation = Simulation(batch_size, blocks, prefill_tokens)
    sequences = [
        waiting(
            row,
            (numbered(shared) + numbered(length, 1000 * row))[:30],
            room,
            side=side if not shared else 0,
            n=n,
        )
        for row, (length, room, side, n) in enumerate(job)
    ]
    simulation.run(sequences)
    assert len(simulation.finished) == sum(n for *_, n in job)
    assert all(one.output_tokens == one.room for one in simulation.finished)
    simulation.prefix.drop()
    assert simulation.cache.pool.used == 0
    assert simulation.cache.free_places == batch_size + 1


def test_rows_start_in_the_order_they_came() -> None:
    simulation = Simulation(batch_size=3)
    simulation.run([waiting(row, numbered(5, 100 * row), 3) for row in range(10)])
    started: list[int] = []
    for block in simulation.passes:
        started += [row for batch in block for row, _ in batch if row not in started]
    assert started == list(range(10))


def test_a_finished_place_is_filled_in_the_next_pass() -> None:
    simulation = Simulation(batch_size=2)
    simulation.run(
        [waiting(row, numbered(3, 100 * row), room) for row, room in enumerate((1, 4, 4))]
    )
    rows = [sorted(row for batch in block for row, _ in batch) for block in simulation.passes]
    assert rows[:2] == [[0, 1], [1, 2]]


def test_decoding_goes_on_beside_the_chunks_of_a_long_prompt() -> None:
    simulation = Simulation(batch_size=2, prefill_tokens=8)
    simulation.run([waiting(0, numbered(3), 6), waiting(1, numbered(20, 500), 2)])
    assert simulation.passes[1] == [[(0, 1), (1, 7)]]
    assert simulation.passes[2] == [[(0, 1), (1, 7)]]


def test_a_batch_holds_one_side_of_the_ropes() -> None:
    simulation = Simulation(batch_size=4)
    simulation.run([waiting(row, numbered(3, 100 * row), 3, side=row % 2) for row in range(4)])
    assert [[row for row, _ in batch] for batch in simulation.passes[0]] == [[0, 2], [1, 3]]


def test_fewer_places_take_none_from_who_runs() -> None:
    simulation = Simulation(batch_size=4, blocks=30)
    sequences = [waiting(row, numbered(3, 100 * row), 6) for row in range(8)]
    for sequence in sequences:
        simulation.scheduler.add(sequence)
    simulation.step()
    simulation.scheduler.sizes = Sizes(2, 1, 64)
    simulation.step()
    assert len(simulation.scheduler.running) == 4
    while not simulation.scheduler.idle:
        simulation.step()
    assert len(simulation.passes[-1][0]) == 2
    assert simulation.scheduler.preemptions == 0


def test_without_room_the_latest_starter_gives_way_and_comes_back() -> None:
    simulation = Simulation(batch_size=2, blocks=10)
    simulation.scheduler.lengths.planned = 1  # outputs are believed to be short
    simulation.run([waiting(0, numbered(16), 20), waiting(1, numbered(16, 500), 20)])
    assert simulation.scheduler.preemptions == 1
    assert [one.request.row_index for one in simulation.finished] == [0, 1]
    assert simulation.finished[1].output_tokens == 20


def test_who_gave_way_comes_back_before_rows_that_have_not_started() -> None:
    simulation = Simulation(batch_size=2, blocks=10)
    simulation.scheduler.lengths.planned = 1
    first = [waiting(row, numbered(16, 500 * row), 20) for row in range(2)]
    simulation.run([*first, waiting(2, numbered(3, 9000), 1)])
    assert simulation.scheduler.preemptions == 1
    in_pass = [{row for batch in block for row, _ in batch} for block in simulation.passes]
    assert 1 in next(rows for rows in in_pass if 2 in rows)


def test_who_gave_way_computes_prompt_and_output_again() -> None:
    simulation = Simulation(batch_size=2, blocks=10, prefill_tokens=40)
    simulation.scheduler.lengths.planned = 1
    simulation.run([waiting(0, numbered(16), 20), waiting(1, numbered(16, 500), 20)])
    again = [tokens for block in simulation.passes for batch in block for _, tokens in batch]
    assert max(again[2:]) > 16
    assert simulation.scheduler.prompt_tokens == 32, "a prompt counts once"


def test_where_the_worst_case_is_expected_nobody_has_to_give_way() -> None:
    simulation = Simulation(batch_size=6, blocks=20)
    simulation.run([waiting(row, numbered(10, 100 * row), 12) for row in range(8)])
    assert simulation.scheduler.preemptions == 0


def test_the_first_sequence_always_starts() -> None:
    simulation = Simulation(batch_size=1, blocks=10)
    simulation.run([waiting(0, numbered(30), 10)])
    assert len(simulation.finished) == 1


def test_what_is_abandoned_gives_everything_back() -> None:
    simulation = Simulation(batch_size=2)
    for row in range(5):
        simulation.scheduler.add(waiting(row, numbered(9, 100 * row), 5))
    simulation.step()
    simulation.scheduler.abandon()
    assert simulation.scheduler.idle
    assert (simulation.cache.pool.used, simulation.cache.free_places) == (0, 3)


def test_expected_tokens_fall_as_tokens_are_written() -> None:
    simulation = Simulation(batch_size=2, blocks=30, prefill_tokens=100)
    for row in range(2):
        simulation.scheduler.add(waiting(row, numbered(5, 100 * row), 6))
    assert simulation.scheduler.expected_tokens() == 12
    simulation.step()
    assert simulation.scheduler.expected_tokens() == 10
