"""After every pass: is the run on its plan, what is to be said, and are its sizes the best."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

from tightrun.core import RunNote
from tightrun.policies.corrections import Corrections
from tightrun.policies.foresight import Foresight
from tightrun.policies.measured import Comparison
from tightrun.policies.plan import Predicted
from tightrun.policies.replan import Change, Learned, Replanner
from tightrun.runtime.plan_watch import PassDone, PlanWatch
from tightrun.runtime.scheduler import Scheduler

REPLANNED_EVENT = "replanned"
# A look simulates the job several times while nothing is computed: at most a fiftieth of the time.
LOOKS_REST = 50


class Steering:
    """Compares the run with its plan, and gives the scheduler other sizes where they are better.

    With `replans` false the sizes stay as they are.
    """

    def __init__(
        self,
        foresight: Foresight,
        predicted: Predicted,
        scheduler: Scheduler,
        corrections: Corrections,
        *,
        replans: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = PlanWatch(foresight, predicted, scheduler.lengths, corrections)
        self._replanner = Replanner(foresight) if replans else None
        self._scheduler, self._corrections = scheduler, corrections
        self._sequences = foresight.lengths.sequences
        self._output_tokens = 0
        self._passes = 0
        self._clock, self._rests_until_s = clock, 0.0

    @property
    def planned_output_tokens_per_s(self) -> float:
        return self._watch.pace.output_tokens_per_s

    @property
    def planned_seconds(self) -> float:
        """What the whole run will take by the plan and the passes so far."""
        return self._watch.planned_seconds

    def passed(
        self, done: PassDone, output_tokens: int, on_note: Callable[[RunNote], None]
    ) -> None:
        """Take in a pass; `output_tokens` were drawn in it."""
        self._passes += 1
        self._output_tokens += output_tokens
        self._watch.add(done)
        note = self._watch.note(self.compared)
        if note is not None:
            on_note(note)
        change = self._change()
        if change is not None:
            self._scheduler.sizes = change.after
            on_note(_note_of(change, self._passes))

    def compared(self) -> Comparison:
        """The run so far against its plan."""
        return self._watch.compared(self._output_tokens, self._mean_prompt)

    def _change(self) -> Change | None:
        """Other sizes, if a look is due and finds better ones."""
        if self._replanner is None or not self._replanner.is_due(self._passes):
            return None
        began_s = self._clock()
        if began_s < self._rests_until_s:
            return None
        change = self._replanner.look(self._passes, self._learned())
        ended_s = self._clock()
        self._rests_until_s = ended_s + LOOKS_REST * (ended_s - began_s)
        return change

    @property
    def _mean_prompt(self) -> float:
        return self._scheduler.prompt_tokens / max(1, self._scheduler.prompts)

    def _learned(self) -> Learned:
        scheduler, lengths = self._scheduler, self._scheduler.lengths
        left = None
        if self._sequences is not None:
            left = max(0, self._sequences - lengths.finished - len(scheduler.running))
        output = lengths.mean_tokens if lengths.are_seen else 0.0
        return Learned(self._corrections, self._mean_prompt, output, left)


def _note_of(change: Change, passes: int) -> RunNote:
    figures = {
        "before": asdict(change.before),
        "after": asdict(change.after),
        "gain": change.gain,
        "passes": passes,
    }
    return RunNote(REPLANNED_EVENT, change.text, figures)
