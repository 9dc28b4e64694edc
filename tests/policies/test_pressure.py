"""When a run shrinks for want of memory, and when it does no more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tightrun.policies.pressure import AGAIN_S, CALM_S, Pressure, Reading, Step

GIB, MIB = 2**30, 2**20
SHORT, PLENTY = 100 * MIB, 2 * GIB


def steps(free: list[int | None], pressure: Pressure | None = None, every_s: float = 1.0) -> str:
    """What is done at each reading, as letters; "." is nothing."""
    pressure = pressure or Pressure(12 * GIB)
    letters: dict[Step, str] = {"nothing": ".", "give back": "g", "shrink": "s", "relieved": "r"}
    return "".join(
        letters[pressure.look(Reading(at * every_s, bytes_))] for at, bytes_ in enumerate(free)
    )


def test_nothing_is_done_while_there_is_room() -> None:
    assert steps([PLENTY] * 5) == "....."
    assert steps([None] * 5) == "....."


def test_freed_memory_is_given_back_first_and_then_the_run_shrinks() -> None:
    assert steps([PLENTY, SHORT, PLENTY, PLENTY]) == ".g.."
    assert steps([SHORT, SHORT, SHORT]) == "g.s"


def test_it_shrinks_again_only_after_a_while() -> None:
    done = steps([SHORT] * (3 + 2 * int(AGAIN_S)))
    assert [at for at, step in enumerate(done) if step == "s"] == [2, 12, 22]


def test_relief_needs_more_room_than_shortness_and_time() -> None:
    pressure = Pressure(12 * GIB)
    between = int(1.5 * pressure.short_bytes)
    assert "r" not in steps([SHORT] + [between] * 100, pressure)
    assert pressure.pressed
    assert steps([PLENTY] * 32, pressure).index("r") == int(CALM_S)
    assert not pressure.pressed


def test_a_small_budget_is_short_at_some_tens_of_mebibytes() -> None:
    assert steps([40 * MIB] * 3, Pressure(600 * MIB)) == "..."
    assert steps([30 * MIB] * 3, Pressure(600 * MIB)) == "g.s"


def test_a_killed_neighbour_is_a_sign_and_a_kill_of_long_ago_is_none() -> None:
    pressure = Pressure(GIB)
    assert pressure.look(Reading(0, PLENTY, oom_kills=3)) == "nothing"
    assert pressure.look(Reading(1, PLENTY, oom_kills=4)) == "give back"
    assert "killed" in pressure.reason


def test_going_over_memory_high_is_a_sign_only_with_little_left() -> None:
    pressure = Pressure(12 * GIB)
    assert pressure.look(Reading(0, PLENTY, high_events=1)) == "nothing"
    assert pressure.look(Reading(1, PLENTY, high_events=9)) == "nothing"
    near = 2 * pressure.short_bytes
    assert pressure.look(Reading(2, near, high_events=9)) == "nothing"
    assert pressure.look(Reading(3, near, high_events=10)) == "give back"


def test_stalling_is_a_sign() -> None:
    pressure = Pressure(12 * GIB)
    assert pressure.look(Reading(0, None, stalled_share=0.19)) == "nothing"
    assert pressure.look(Reading(1, None, stalled_share=0.5)) == "give back"
    assert pressure.reason == "50 % of the time nothing can run for want of it"


@given(st.lists(st.integers(0, 2 * GIB), min_size=100, max_size=300))
def test_however_memory_swings_the_run_is_not_shrunk_or_relieved_often(free: list[int]) -> None:
    done = steps(list(free))
    assert done.count("s") <= 1 + len(free) / AGAIN_S
    assert done.count("r") <= len(free) / CALM_S
    assert done.count("g") <= 1 + done.count("r")
