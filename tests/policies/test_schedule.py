"""How long a pass takes by its schedule: small passes by hand, and what holds for all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrun.policies.schedule import BatchSeconds, Schedule, Streaming, elapsed_s

SCHEDULES: tuple[Schedule, ...] = ("adaptive", "static", "sync")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_with_all_resident_a_pass_is_its_computing(schedule: Schedule) -> None:
    batches = [BatchSeconds(3.0, 0.5), BatchSeconds(2.0, 0.25)]
    assert elapsed_s(schedule, batches, Streaming(10, 0), between_s=0.1) == pytest.approx(5.85)


def test_sync_brings_the_weights_for_every_batch_and_waits_for_all() -> None:
    batches = [BatchSeconds(3.0, 0.5, 1.0, 0.25)] * 2
    streaming = Streaming(10, 10, weights_s=7.0, disk_s=2.0)
    assert elapsed_s("sync", batches, streaming) == pytest.approx(2 * (7 + 2 + 3 + 0.5 + 1 + 0.25))


def test_static_hides_weights_behind_the_first_batch_only() -> None:
    c, kv, weights = 0.3, 0.1, 1.0
    batches = [BatchSeconds(10 * c, 0.0, 10 * kv)] * 4
    found = elapsed_s("static", batches, Streaming(10, 10, weights_s=10 * weights))
    first_fetch = kv
    assert found == pytest.approx(10 * (max(c, weights + kv) + 3 * max(c, kv)) + first_fetch)


def test_static_waits_for_what_a_batch_has_written_unless_told_otherwise() -> None:
    batches = [BatchSeconds(3.0, 0.0, 0.0, 1.0)] * 2
    assert elapsed_s("static", batches, Streaming(10, 0)) == pytest.approx(8.0)
    beside = elapsed_s("static", batches, Streaming(10, 0), stores_beside=True)
    assert beside == pytest.approx(6.0)


def test_adaptive_is_the_busier_of_computing_and_link() -> None:
    streaming = Streaming(10, 10, weights_s=10.0)
    busy = [BatchSeconds(5.0, 0.0)] * 4
    idle = [BatchSeconds(1.0, 0.0)] * 4
    assert elapsed_s("adaptive", busy, streaming) == pytest.approx(20.0)
    assert elapsed_s("adaptive", idle, streaming) == pytest.approx(10.0)


def test_the_first_context_of_a_pass_is_waited_for() -> None:
    batches = [BatchSeconds(10.0, 0.0, 2.0)] * 4
    assert elapsed_s("adaptive", batches, Streaming(10, 0)) == pytest.approx(40.2)


def test_the_last_batch_and_the_heads_compute_while_no_context_can_come() -> None:
    batches = [BatchSeconds(1.0, 0.5, 10.0)] * 4
    assert elapsed_s("adaptive", batches, Streaming(10, 0)) == pytest.approx(40 + 0.1 + 4 * 0.5)


def test_weights_come_beside_the_heads_as_far_as_there_are_slots() -> None:
    batches = [BatchSeconds(1.0, 2.0)] * 2
    two, four = (Streaming(10, 10, weights_s=10.0, fills_ahead=n) for n in (1, 3))
    assert elapsed_s("adaptive", batches, two) == pytest.approx(10 + 4 - 1)
    assert elapsed_s("adaptive", batches, four) == pytest.approx(10 + 4 - 3)


@pytest.mark.parametrize("schedule", ["adaptive", "static"])
def test_a_slow_disk_or_both_ways_together_hold_a_pass_up(schedule: Schedule) -> None:
    batches = [BatchSeconds(1.0, 0.0)]
    assert elapsed_s(schedule, batches, Streaming(10, 10, 1.0, disk_s=30.0)) == 30.0
    assert elapsed_s(schedule, batches, Streaming(10, 10, 1.0), both_ways_s=20.0) == 20.0


seconds = st.floats(0.0, 10.0)
batches_of = st.lists(
    st.builds(BatchSeconds, seconds, seconds, seconds, seconds), min_size=1, max_size=6
)


@given(batches_of, st.integers(2, 80), seconds, seconds, st.integers(1, 3))
def test_adaptive_is_no_slower_than_static_nor_that_than_sync(
    batches: list[BatchSeconds], layers: int, weights_s: float, disk_s: float, ahead: int
) -> None:
    # Equal batches, as the schedules' own formulas have them.
    batches = [batches[0]] * len(batches)
    streaming = Streaming(layers, layers, weights_s, disk_s, ahead)
    adaptive, static, sync = (elapsed_s(x, batches, streaming) for x in SCHEDULES)
    assert adaptive <= static * (1 + 1e-9)
    assert static <= sync * (1 + 1e-9)


@given(batches_of, st.integers(2, 80), seconds, st.sampled_from(SCHEDULES))
def test_no_pass_is_shorter_than_its_busiest_resource(
    batches: list[BatchSeconds], layers: int, weights_s: float, schedule: Schedule
) -> None:
    found = elapsed_s(schedule, batches, Streaming(layers, layers, weights_s)) * (1 + 1e-9)
    assert found >= sum(b.layers_s + b.head_s for b in batches)
    assert found >= weights_s + sum(b.fetch_s for b in batches)
    assert found >= sum(b.store_s for b in batches)
