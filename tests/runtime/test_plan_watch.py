"""What is said of a run that is off its plan, and when."""

from __future__ import annotations

import pytest

from tests.policies.machines import model
from tightrun.core import RunNote, StepRecord
from tightrun.policies.admission import OutputLengths
from tightrun.policies.corrections import Corrections
from tightrun.policies.cost import PassBound
from tightrun.policies.foresight import Foresight
from tightrun.policies.forms import recipe_of
from tightrun.policies.hardware import Rates
from tightrun.policies.lengths import Lengths
from tightrun.policies.loads import PassMeasured
from tightrun.policies.measured import Assumed, Pace
from tightrun.policies.pass_cost import Policy
from tightrun.policies.placement import Placement
from tightrun.policies.plan import Predicted
from tightrun.runtime.plan_watch import PATIENCE, PassDone, PlanWatch

RATES = Rates(((1, 1e12),), 1e9, 1e9, 1e9)
SHAPE = model(2, 32, 4, 4, 8, 64, 256)
STEP = StepRecord(1, 1, "mixed", 0.0, 1.0, 2, 16, 48, 16, 500)
PLANNED = Lengths((30,), 32)
PROMISED = Predicted(60.0, 800.0, 90.0, 80.0, "h2d")


def foresight(lengths: Lengths) -> Foresight:
    placement = Placement(2, 8, 64, 64, 16, 100)
    return Foresight(SHAPE, recipe_of(SHAPE), placement, Policy(), lengths, RATES)


def watch(
    promised: Predicted = PROMISED,
    lengths: Lengths = PLANNED,
    learnt: OutputLengths | None = None,
) -> PlanWatch:
    return PlanWatch(foresight(lengths), promised, learnt or OutputLengths(), Corrections())


def done(slower: float = 1.0) -> PassDone:
    """A pass bound by the link in, which takes so many times as long as planned."""
    measured = PassMeasured(slower, 0.25, link_in_s=slower, link_in_bytes=10**9)
    return PassDone(PassBound(0.25, 0.0, 1.0), measured, PassBound(0.2, 0.1, 1.0), 1e11, STEP)


def notes(watch: PlanWatch, passes: int, slower: float) -> list[tuple[int, RunNote]]:
    """What is said, with the pass after which it is."""
    said = []
    for number in range(1, passes + 1):
        watch.add(done(slower))
        note = watch.note(lambda: watch.compared(0, 0.0))
        if note is not None:
            said.append((number, note))
    return said


def test_a_run_on_plan_is_not_spoken_of() -> None:
    assert notes(watch(), 100, 1.1) == []


def test_a_gap_is_told_once_when_it_has_stood_after_the_warm_up() -> None:
    said = notes(watch(), 100, 2.0)
    assert [number for number, _ in said] == [20 + PATIENCE - 1]
    assert said[0][1].text.startswith("slower than planned: the link to the device moved 0.5 GB/s")


def test_its_figures_are_those_of_the_comparison() -> None:
    ((_, note),) = notes(watch(), 40, 2.0)
    assert (note.event, note.figures["cause"]) == ("off_plan", "h2d")
    assert note.figures["gap"] == pytest.approx(2.0)
    assert note.figures["comparison"]["passes"] == 29


def test_what_passes_is_no_cause() -> None:
    passing = watch()
    assert notes(passing, 22, 1.3) == []
    assert notes(passing, 500, 1.0) == []


def test_prefill_and_decode_share_the_time_of_a_pass_by_their_rows() -> None:
    watched = watch()
    watched.add(done())
    measured = watched.compared(16, 30.0).measured
    assert (measured.prefill_tokens_per_s, measured.decode_tokens_per_s) == (64.0, 64.0)
    assert (measured.output_tokens_per_s, measured.seconds) == (16.0, 1.0)


def test_every_resource_has_the_rate_planned_with_and_the_one_it_had() -> None:
    watched = watch()
    watched.add(done(2.0))
    run = watched.compared(0, 0.0)
    link, compute, memory = (run.used(name) for name in ("h2d", "compute", "memory"))
    assert link is not None
    assert compute is not None
    assert memory is not None
    assert (link.planned_per_s, link.measured_per_s, link.factor) == (1e9, 0.5e9, 2.0)
    assert (compute.planned_per_s, compute.measured_per_s) == (4e11, 4e11)
    assert (memory.planned_per_s, memory.measured_per_s) == (1e9, 4e8)
    assert run.used("disk") is None


def test_what_was_promised_and_reckoned_with_stands_beside_it() -> None:
    run = watch(lengths=Lengths((10, 20, 60), 32, 10)).compared(0, 12.0)
    assert run.planned == Pace(60.0, 800.0, 90.0, 80.0)
    assert (run.prompt, run.output) == (Assumed(30.0, 12.0), Assumed(32.0, 0.0))
    assert run.together.planned == 10


def test_outputs_are_compared_when_most_of_them_were_seen_to_end() -> None:
    learnt = OutputLengths()
    watched = watch(learnt=learnt)
    for _ in range(40):
        learnt.learn(90, 200)
    learnt.draw([(95, 200)] * 400)
    assert watched.compared(0, 0.0).output.measured == 0.0
    learnt.draw([(5, 200)] * 10)
    assert watched.compared(0, 0.0).output.measured == pytest.approx(90.0)


def test_longer_outputs_make_the_plan_promise_less_or_more() -> None:
    short, long = (
        watch(lengths=Lengths((30,), output, 100)).compared(0, 30.0) for output in (4, 400)
    )
    learnt = OutputLengths()
    for _ in range(40):
        learnt.learn(400, 500)
    learnt.draw(())
    found = watch(lengths=Lengths((30,), 4, 100), learnt=learnt).compared(0, 30.0)
    assert found.reachable_tokens_per_s == pytest.approx(long.reachable_tokens_per_s, rel=0.01)
    assert found.reachable_tokens_per_s != pytest.approx(short.reachable_tokens_per_s, rel=0.01)


def test_the_time_of_the_whole_run_follows_the_passes() -> None:
    watched = watch()
    assert watched.planned_seconds == 60.0
    watched.add(done(1.5))
    assert watched.planned_seconds == 90.0
