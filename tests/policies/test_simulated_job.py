"""The sequences of a simulated job start, grow and end as the scheduler has them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrun.policies.lengths import Lengths
from tightrun.policies.pass_cost import BatchCounts
from tightrun.policies.placement import Placement
from tightrun.policies.simulated_job import SimulatedJob

RESIDENT = Placement(
    batches=1, batch_size=4, prefill_tokens=64, most_rows=64, block_tokens=16, kv_blocks=1000
)
AWAY = replace(RESIDENT, batches=2, kv_blocks=8, lane_blocks=100)


def passes(job: SimulatedJob) -> list[tuple[int, list[BatchCounts]]]:
    """All passes of the job: how many alike, and their batches."""
    found = []
    job.start()
    while job.running:
        count = job.alike()
        found.append((count, job.counts(count)))
        job.start()
    return found


def test_a_single_sequence_by_hand() -> None:
    job = SimulatedJob(RESIDENT, Lengths((100,), 3), 1)
    (first,), (second,), (third,) = (batches for _, batches in passes(job))
    assert first == BatchCounts(64, 0, 64 * 65 / 2, 64)
    assert second == BatchCounts(36, 1, 36 * 64 + 36 * 37 / 2, 100)
    # The two tokens that are left are decoded in two passes alike: contexts of 101 and 102.
    assert third == BatchCounts(1, 1, 101.5, 101.5)


def test_a_context_off_the_device_is_fetched_for_what_is_computed_of_it() -> None:
    away = replace(AWAY, batches=1, kv_blocks=0)
    job = SimulatedJob(away, Lengths((100,), 2), 1)
    counts = [batches[0] for _, batches in passes(job)]
    assert [b.offloaded for b in counts] == [0, 64, 100]
    assert [b.written for b in counts] == [64, 36, 1]


def test_decode_takes_of_the_rows_that_prefill_may_have() -> None:
    job = SimulatedJob(RESIDENT, Lengths((32, 32), 10), 3)
    rows = [batches[0].rows for _, batches in passes(job)]
    assert rows[0] == 64  # two prompts
    assert rows[1] == 2 + 32  # their next tokens, and the third prompt


def test_sequences_go_to_the_device_first_then_off_it_in_turns() -> None:
    job = SimulatedJob(AWAY, Lengths((48,), 16), 4)
    job.start()
    first, second = job.counts(1)
    # Each lane has 64 tokens of a pass: 48 of a sequence on the device, 16 of one off it.
    assert (first.written, second.written) == (16, 16)


def test_no_more_sequences_than_places_and_none_without_memory() -> None:
    roomy = SimulatedJob(RESIDENT, Lengths((16,), 16), 100)
    roomy.start()
    assert roomy.running == 4
    tight = SimulatedJob(replace(RESIDENT, kv_blocks=5), Lengths((16,), 16), 100)
    tight.start()
    assert tight.running == 2


def test_one_sequence_always_starts() -> None:
    job = SimulatedJob(replace(RESIDENT, kv_blocks=1), Lengths((160,), 16), 2)
    job.start()
    assert job.running == 1


placements = st.builds(
    Placement,
    batches=st.integers(1, 3),
    batch_size=st.integers(1, 5),
    prefill_tokens=st.integers(1, 100),
    most_rows=st.just(0),
    block_tokens=st.just(16),
    kv_blocks=st.integers(0, 60),
    lane_blocks=st.integers(1, 60),
)
lengths = st.builds(
    Lengths,
    prompts=st.lists(st.integers(1, 300), min_size=1, max_size=5).map(lambda x: tuple(sorted(x))),
    output=st.integers(1, 100),
    most_output=st.one_of(st.none(), st.integers(1, 300)),
)


@given(placements, lengths, st.integers(1, 40))
def test_every_token_is_computed_once_and_every_sequence_ends(
    placement: Placement, found: Lengths, rows: int
) -> None:
    job = SimulatedJob(placement, found, rows)
    computed = sum(count * b.rows for count, batches in passes(job) for b in batches)
    prompts = sum(found.prompt_of(i) for i in range(rows))
    outputs = sum(found.output_of(i) for i in range(rows))
    assert (job.started, job.finished, job.running) == (rows, rows, 0)
    assert (job.prefill_tokens, job.output_tokens) == (prompts, outputs)
    # The last token of a sequence is drawn, not computed.
    assert computed == pytest.approx(prompts + outputs - rows)


@given(placements, lengths)
def test_passes_alike_are_the_passes_one_by_one(placement: Placement, found: Lengths) -> None:
    together, single = (SimulatedJob(placement, found, 12) for _ in range(2))
    sums = [[0.0] * 7, [0.0] * 7]
    sequences_off = BatchCounts._fields.index("offloaded_sequences")
    for job, at_once in ((together, True), (single, False)):
        job.start()
        while job.running:
            count = job.alike() if at_once else 1
            for batch in job.counts(count):
                for index, value in enumerate(batch):
                    sums[at_once][index] += count * value
            job.start()
    # A prompt has no context off the device in its first pass only: that does not show.
    sums[0][sequences_off] = sums[1][sequences_off]
    assert sums[0] == pytest.approx(sums[1])
