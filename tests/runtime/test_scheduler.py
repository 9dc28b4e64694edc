"""Who computes what in a pass: everybody gets on, nothing is computed twice without need."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.stand_ins import request
from tests.runtime.test_kv_cache import SIZE, cache_of
from tightrun.policies.foresight import Sizes
from tightrun.policies.plan import Plan
from tightrun.runtime.batch import Segment
from tightrun.runtime.prefix import SHORTEST, SharedPrefix
from tightrun.runtime.scheduler import Scheduler
from tightrun.runtime.sequence import Sequence


def waiting(row: int, prompt: list[int], room: int, *, side: int = 0, n: int = 1) -> Sequence:
    """A sequence as the feed makes it."""
    asked = request(row, n=n)
    first, *others = (Sequence(asked, i, list(prompt), len(prompt), room, side) for i in range(n))
    first.siblings = others
    return first


@dataclass
class Simulation:
    """Passes without a model: every sequence writes as many tokens as it has room for."""

    batch_size: int = 4
    blocks: int = 12
    prefill_tokens: int = 16
    passes: list[list[list[tuple[int, int]]]] = field(default_factory=list)
    finished: list[Sequence] = field(default_factory=list)
    computed_tokens: int = 0

    def __post_init__(self) -> None:
        plan = Plan(self.batch_size, 1, self.prefill_tokens, SIZE, self.blocks, 40)
        self.cache = cache_of(self.blocks, self.batch_size + 1)
        self.prefix = SharedPrefix(self.cache)
        self.scheduler = Scheduler(plan, self.cache, self.prefix)

    def run(self, sequences: list[Sequence], most_passes: int = 2000) -> None:
        """Until all are finished; each pass is held against what must always be true."""
        self.prefix.find(sequences)
        for one in sequences:
            self.scheduler.add(one)
        while not self.scheduler.idle:
            assert len(self.passes) < most_passes, "somebody never gets on"
            self.step()

    def step(self) -> None:
        block = self.scheduler.next_block()
        self.check(block)
        self.passes.append(
            [[(s.sequence.request.row_index, s.tokens) for s in batch] for batch in block]
        )
        at_end = [s.sequence for batch in block for s in batch if s.reaches_end]
        self.scheduler.advance(block)
        for one in at_end:
            one.tokens.append(7)
            if one.output_tokens == one.room:
                self.scheduler.finish(one)
                self.finished.append(one)

    def check(self, block: list[list[Segment]]) -> None:
        segments = [segment for batch in block for segment in batch]
        assert segments, "a pass without work"
        assert len({segment.sequence for segment in segments}) == len(segments)
        assert len(self.scheduler.running) <= self.batch_size
        decoding = sum(segment.tokens == 1 for segment in segments)
        total = sum(segment.tokens for segment in segments)
        self.computed_tokens += total
        assert total <= max(self.prefill_tokens, decoding + 1)
        for segment in segments:
            one = segment.sequence
            assert 1 <= segment.tokens <= one.uncomputed
            assert one.place >= 0
            assert len(one.blocks) * SIZE >= one.computed + segment.tokens
        for batch in block:
            assert len({segment.sequence.rope_side for segment in batch}) == 1


def numbered(tokens: int, start: int = 100) -> list[int]:
    return list(range(start, start + tokens))


# A sequence of at most 40 tokens fits into 10 blocks of 4; from there on nobody may starve.
jobs = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 10), st.integers(0, 1), st.integers(1, 3)),
    min_size=1,
    max_size=12,
)


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


# --- other sizes ------------------------------------------------------------------------------


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


# --- giving way -------------------------------------------------------------------------------


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


# --- the shared prefix --------------------------------------------------------------------------


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


# --- several samples ----------------------------------------------------------------------------


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


# --- what is still to come ----------------------------------------------------------------------


def test_expected_tokens_fall_as_tokens_are_written() -> None:
    simulation = Simulation(batch_size=2, blocks=30, prefill_tokens=100)
    for row in range(2):
        simulation.scheduler.add(waiting(row, numbered(5, 100 * row), 6))
    assert simulation.scheduler.expected_tokens() == 12
    simulation.step()
    assert simulation.scheduler.expected_tokens() == 10


# --- batches held to fewer rows ------------------------------------------------------------------


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
