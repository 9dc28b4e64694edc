"""One pass from its plan to its end, or to where it is given up: then nothing of it counts."""

from __future__ import annotations

from collections.abc import Callable

from tightrun.runtime.batch import Batch, Segment
from tightrun.runtime.loop import Loop
from tightrun.runtime.memory_failures import (
    MemoryFailure,
    PassAbandonedError,
    PassOutOfMemoryError,
    failure_anywhere,
    is_memory_failure,
)
from tightrun.runtime.pass_plan import PassPlanner, PlannedPass
from tightrun.runtime.scheduler import Scheduler
from tightrun.runtime.stages import Sample, Stages, never
from tightrun.runtime.weights import Weights

# Of a longer pass no more is enqueued than what is over soon: it may have to be given up. Events
# for every part would cost a short one some per cent.
LONG_PASS_S = 5.0


class PassRunner:
    """Takes the scheduler's blocks through the stages in the order of a loop."""

    def __init__(
        self,
        loop: Loop,
        scheduler: Scheduler,
        planner: PassPlanner,
        stages: Stages,
        weights: Weights,
    ) -> None:
        self._loop, self._scheduler, self._planner = loop, scheduler, planner
        self._stages, self._weights = stages, weights

    def run(
        self,
        block: list[list[Segment]],
        sample: Sample,
        given_up: Callable[[], bool] = never,
    ) -> PlannedPass:
        """Plan and compute the pass; `sample` gets each batch's logits.

        Raises PassAbandonedError soon after `given_up` has turned true, PassOutOfMemoryError where
        memory ran out. Everything is then as if the pass had not begun, but that some sequences
        may have given way; what `sample` was given does not count.
        """
        batches: list[Batch] = []
        failure: MemoryFailure | None = None
        try:
            planned = self._planner.plan(block)
            batches = planned.batches
            long = planned.decision.elapsed_s > LONG_PASS_S
            self._stages.begin_pass(sample, given_up, in_step=long)
            self._weights.begin_pass(*self._planner.rooms(planned))
            self._loop(self._stages, self._weights, batches)
            return planned
        except PassOutOfMemoryError as error:
            failure = error.failure
        except PassAbandonedError:
            pass
        except Exception as error:
            if not is_memory_failure(error):
                raise
            failure = failure_anywhere(block, error)
        # The error is gone by now, and with it what its frames held. The weight loader goes on
        # from any stage: what is on its way to a slot may arrive.
        self._scheduler.give_up_pass(self._stages.abandon(batches))
        raise PassAbandonedError if failure is None else PassOutOfMemoryError(failure)

    def hold(self, rows: int) -> None:
        """Give batches at most so many rows from now on, those computed again included."""
        self._scheduler.hold(rows)
        self._planner.hold(rows)
        self._stages.hold(rows)
