"""Other sizes for the scheduler, when what passes teach makes them better."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from tests.policies.test_replan import STREAMED
from tests.runtime.test_kv_cache import SIZE, cache_of
from tightrun.core import RunNote, StepRecord
from tightrun.policies.corrections import Correction, Corrections
from tightrun.policies.cost import PassBound
from tightrun.policies.foresight import Foresight, Sizes
from tightrun.policies.loads import PassMeasured
from tightrun.policies.plan import Plan, Predicted
from tightrun.runtime.plan_watch import PassDone
from tightrun.runtime.prefix import SharedPrefix
from tightrun.runtime.scheduler import Scheduler
from tightrun.runtime.steering import Steering

STEP = StepRecord(1, 1, "decode", 0.0, 1.0, 4, 256, 0, 256, 90_000)
AS_PLANNED = PassDone(PassBound(1.0, 0.0), PassMeasured(1.0, 1.0), PassBound(0.5, 0.1), 1e12, STEP)
SLOW = Corrections(compute=Correction(8.0), prefill=Correction(8.0))


def scheduler() -> Scheduler:
    cache = cache_of(12, 5)
    return Scheduler(Plan(64, 4, 2048, SIZE, 12, 40), cache, SharedPrefix(cache))


def steered(corrections: Corrections, *, replans: bool = True) -> tuple[Scheduler, list[RunNote]]:
    """The scheduler and what was said after a hundred passes with such corrections."""
    one, notes = scheduler(), list[RunNote]()
    promised = Predicted(100.0, 0.0, 0.0, 50.0, "h2d")
    steering = Steering(STREAMED, promised, one, corrections, replans=replans, clock=lambda: 0.0)
    for _ in range(100):
        steering.passed(AS_PLANNED, 256, notes.append)
    return one, notes


def test_a_run_as_planned_is_left_alone() -> None:
    one, notes = steered(Corrections())
    assert (one.sizes, notes) == (Sizes(64, 4, 2048), [])


def test_a_machine_that_computes_slower_gets_other_sizes_and_a_note() -> None:
    one, notes = steered(SLOW)
    assert one.sizes == Sizes(64, 4, 512)
    (note,) = notes
    assert note.event == "replanned"
    assert note.figures["before"] == {"batch_size": 64, "batches": 4, "prefill_tokens": 2048}
    assert note.figures["after"] == {"batch_size": 64, "batches": 4, "prefill_tokens": 512}


def test_sizes_that_a_person_chose_stay() -> None:
    one, notes = steered(SLOW, replans=False)
    assert (one.sizes, notes) == (Sizes(64, 4, 2048), [])


def test_tokens_drawn_are_those_of_the_comparison() -> None:
    one = scheduler()
    promised = Predicted(100.0, 0.0, 0.0, 50.0, "h2d")
    steering = Steering(STREAMED, promised, one, Corrections(), replans=False)
    for _ in range(4):
        steering.passed(AS_PLANNED, 256, lambda _: None)
    assert steering.compared().measured.output_tokens_per_s == 256.0


@dataclass(frozen=True)
class Timed(Foresight):
    """Simulations that take a tenth of a second each, on a clock of their own."""

    clock: list[float] = field(default_factory=lambda: [0.0])

    def predicted(self, **given: Any) -> Predicted:
        self.clock[0] += 0.1
        return Predicted(0.0, 0.0, 0.0, 1.0 / given["sizes"].prefill_tokens, "compute")


def test_looking_takes_a_fiftieth_of_the_time_at_most() -> None:
    slow = Timed(*(getattr(STREAMED, x.name) for x in fields(STREAMED)))
    promised = Predicted(100.0, 0.0, 0.0, 50.0, "h2d")
    steering = Steering(
        slow, promised, scheduler(), SLOW, replans=True, clock=lambda: slow.clock[0]
    )
    passes = 150
    for _ in range(passes):
        slow.clock[0] += 0.1
        steering.passed(AS_PLANNED, 256, lambda _: None)
    looking_s = slow.clock[0] - 0.1 * passes
    assert 0 < looking_s < 0.02 * slow.clock[0] + 1.5
