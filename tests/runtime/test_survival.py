"""What is done about a batch that ran out of memory."""

from __future__ import annotations

import pytest

from tests.runtime.stand_ins import sequence
from tightrun.core import RunNote
from tightrun.policies.caps import PATIENCE
from tightrun.runtime.memory_failures import MemoryFailure
from tightrun.runtime.sequence import Sequence
from tightrun.runtime.survival import MOST_IN_A_ROW, PAUSES_S, STRIKES, Survival


class Watched:
    """A survival whose words and holds are kept."""

    def __init__(self, widest: int = 2048) -> None:
        self.notes: list[RunNote] = []
        self.held: list[int] = []
        self.pauses: list[float] = []
        self.survival = Survival(widest, self.held.append, self.pauses.append)

    def failed(self, rows: int, *sequences: Sequence, where: str = "layer 3") -> Sequence | None:
        failure = MemoryFailure(where, rows, sequences, "no room")
        return self.survival.failed(failure, self.notes.append)

    def passed(self, rows: int, times: int = 1) -> None:
        for _ in range(times):
            self.survival.passed(rows, self.notes.append)


def test_batches_are_held_to_half_of_what_failed_and_it_is_said() -> None:
    watched = Watched()
    assert watched.failed(812, sequence([1]), sequence([2])) is None
    assert watched.held == [406]
    [note] = watched.notes
    assert note.text == (
        "out of memory in layer 3 of a batch of 812 rows: batches are held to 406 from here "
        "(no room)"
    )
    assert note.figures == {"where": "layer 3", "rows": 812, "held_to": 406}


def test_many_good_passes_raise_what_is_allowed_and_it_is_said() -> None:
    watched = Watched(1000)
    watched.failed(1000, sequence([1]), sequence([2]))
    watched.passed(500, PATIENCE)
    assert watched.held == [500, 625]
    assert watched.notes[-1].figures == {"held_to": 625}


def test_a_single_row_is_tried_alone_before_it_is_an_error_row() -> None:
    watched = Watched()
    long, other = sequence([1] * 30, row=7), sequence([2])
    watched.failed(2, long, other)
    for _ in range(STRIKES - 1):
        assert watched.failed(1, long) is None
        assert watched.survival.alone is long
    assert watched.failed(1, long) is long
    assert watched.survival.alone is None
    assert long.error is not None
    assert long.error.code == "oom"
    assert watched.notes[-1].figures["id"] == "r7"
    assert watched.pauses == list(PAUSES_S)


def test_with_the_row_goes_the_blame() -> None:
    watched = Watched()
    one = sequence([1])
    watched.failed(2048, one, sequence([2]))
    watched.failed(1024, one, sequence([2]))
    watched.passed(512)
    for _ in range(STRIKES):
        watched.failed(1, one)
    assert watched.held == [1024, 512, 2048]


def test_a_row_that_passes_alone_is_no_error_row() -> None:
    watched = Watched()
    one = sequence([1])
    for _ in range(5):
        assert watched.failed(1, one) is None
        assert watched.failed(1, one) is None
        watched.passed(1)
        assert watched.survival.alone is None
    assert one.error is None


def test_failures_without_end_and_without_a_culprit_end_the_job() -> None:
    watched = Watched()
    for _ in range(MOST_IN_A_ROW):
        watched.failed(1, sequence([1]), sequence([2]), where="")
    with pytest.raises(MemoryError, match="64 passes in a row"):
        watched.failed(1, sequence([1]), sequence([2]), where="")


def test_good_passes_between_failures_are_no_end() -> None:
    watched = Watched()
    for _ in range(3 * MOST_IN_A_ROW):
        watched.failed(100, sequence([1]), sequence([2]))
        watched.passed(1)
