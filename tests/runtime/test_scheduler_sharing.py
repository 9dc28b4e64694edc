"""What sequences begin with in common is computed once: by all prompts, or by samples of one."""

from __future__ import annotations

from tests.runtime.simulated_scheduler import Simulation, numbered, waiting
from tightrun.runtime.prefix import SHORTEST
from tightrun.runtime.sequence import Sequence


def prefixed(rows: int, *, prefix: int = 18, own: int = 4, room: int = 3) -> list[Sequence]:
    """Rows that begin with the same tokens."""
    return [
        waiting(row, numbered(prefix) + numbered(own, 1000 * (row + 1)), room)
        for row in range(rows)
    ]


def test_a_shared_prefix_is_computed_once() -> None:
    simulation = Simulation(batch_size=3, blocks=30, prefill_tokens=100)
    simulation.run(prefixed(5))
    first_passes: dict[int, int] = {}
    for block in simulation.passes:
        for batch in block:
            for row, tokens in batch:
                first_passes.setdefault(row, tokens)
    assert first_passes == {0: 22, 1: 4, 2: 4, 3: 4, 4: 4}
    assert simulation.scheduler.shared_tokens == 4 * 18
    assert simulation.scheduler.prompt_tokens == 5 * 22


def test_others_wait_for_the_prefix_and_start_right_after_it() -> None:
    simulation = Simulation(batch_size=3, blocks=30, prefill_tokens=16)
    simulation.run(prefixed(3))
    assert simulation.passes[0] == [[(0, 16)]]
    assert simulation.passes[1] == [[(0, 6)]]
    assert {row for batch in simulation.passes[2] for row, _ in batch} == {0, 1, 2}


def test_a_short_common_beginning_is_left_alone() -> None:
    simulation = Simulation(blocks=30)
    simulation.run(prefixed(4, prefix=SHORTEST - 1))
    assert simulation.scheduler.shared_tokens == 0


def test_equal_prompts_leave_each_a_token_to_compute() -> None:
    simulation = Simulation(batch_size=4, blocks=30, prefill_tokens=100)
    simulation.run(prefixed(4, prefix=20, own=0))
    assert simulation.scheduler.shared_tokens == 3 * 19
    assert len(simulation.finished) == 4


def test_a_later_row_may_share_a_part_of_the_prefix() -> None:
    simulation = Simulation(batch_size=3, blocks=30, prefill_tokens=100)
    rows = prefixed(3, prefix=20)
    odd = waiting(9, numbered(17) + numbered(5, 9000), 3)
    simulation.prefix.find(rows)
    for one in (*rows, odd):
        simulation.scheduler.add(one)
    while not simulation.scheduler.idle:
        simulation.step()
    assert simulation.scheduler.shared_tokens == 2 * 20 + 17


def test_rows_of_another_side_share_nothing() -> None:
    simulation = Simulation(batch_size=3, blocks=30)
    rows = prefixed(3)
    assert simulation.prefix.find(rows) == 18
    other = waiting(9, numbered(18), 3, side=1)
    for one in (*rows, other):
        simulation.scheduler.add(one)
    while not simulation.scheduler.idle:
        simulation.step()
    assert simulation.scheduler.shared_tokens == 2 * 18


def test_blocks_of_the_prefix_are_not_reckoned_for_every_row_again() -> None:
    simulation = Simulation(batch_size=4, blocks=14, prefill_tokens=100)
    simulation.run(prefixed(5, prefix=24, own=4, room=4))
    # The prefix takes 6 of 14 blocks, and each row 2 of its own.
    assert {row for batch in simulation.passes[1] for row, _ in batch} == {0, 1, 2, 3}
    assert simulation.scheduler.preemptions == 0


def test_a_prefix_is_given_up_where_a_sequence_needs_its_blocks() -> None:
    simulation = Simulation(batch_size=2, blocks=10)
    rows = [*prefixed(2, prefix=20, own=1, room=2), waiting(5, numbered(30, 7000), 10)]
    simulation.prefix.find(rows[:2])
    for one in rows:
        simulation.scheduler.add(one)
    while not simulation.scheduler.idle:
        simulation.step()
    assert len(simulation.finished) == 3
    assert simulation.cache.pool.used == 0


def test_another_job_forgets_the_prefix_of_the_one_before() -> None:
    simulation = Simulation(batch_size=2, blocks=30)
    simulation.run(prefixed(2))
    second = [waiting(row, [*numbered(20, 5000), row], 2) for row in range(2)]
    simulation.run(second)
    third = [waiting(row, numbered(10, 7000 + 100 * row), 2) for row in range(2)]
    simulation.run(third)
    assert simulation.cache.pool.used == 0
    assert simulation.scheduler.shared_tokens == 18 + 20


def test_samples_share_the_blocks_of_their_prompt() -> None:
    simulation = Simulation(batch_size=3, blocks=30, prefill_tokens=100)
    simulation.scheduler.add(waiting(0, numbered(17), 4, n=3))
    simulation.step()
    simulation.step()
    first, *others = simulation.scheduler.running
    assert [one.blocks[:4] for one in others] == [first.blocks[:4]] * 2
    assert len({one.blocks[4] for one in simulation.scheduler.running}) == 3
    assert simulation.cache.pool.used == 4 + 3


def test_a_prompt_of_several_samples_counts_and_is_computed_once() -> None:
    simulation = Simulation(batch_size=3, blocks=30, prefill_tokens=100)
    simulation.run([waiting(0, numbered(17), 4, n=3)])
    assert simulation.scheduler.prompt_tokens == 17
    # The prompt, its last token again for each other sample, and all but the last output tokens.
    assert simulation.computed_tokens == 17 + 2 + 3 * 3


def test_samples_of_one_token_start_from_the_prompt_again() -> None:
    simulation = Simulation(batch_size=3, blocks=30)
    simulation.run([waiting(0, numbered(9), 1, n=3)])
    assert len(simulation.finished) == 3


def test_samples_come_before_rows_that_have_not_started() -> None:
    simulation = Simulation(batch_size=2, blocks=30)
    later = [waiting(row, numbered(9, 500 * row), 3) for row in (1, 2)]
    simulation.run([waiting(0, numbered(9), 3, n=3), *later])
    assert [one.request.row_index for one in simulation.finished] == [0, 1, 0, 0, 2]
