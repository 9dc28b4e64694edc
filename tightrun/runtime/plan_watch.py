"""Compares a run with its plan as it goes, and says once what is off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tightrun.core import RunNote, StepRecord
from tightrun.policies.admission import OutputLengths
from tightrun.policies.corrections import Corrections
from tightrun.policies.cost import PassBound
from tightrun.policies.explain import explain, is_warm
from tightrun.policies.foresight import Foresight
from tightrun.policies.loads import PassMeasured
from tightrun.policies.measured import Assumed, Comparison, Measurements, Pace
from tightrun.policies.plan import Predicted

GAP_EVENT = "off_plan"
# Passes in which the same cause must stand: the first ones are not like those that follow.
PATIENCE = 10
# Lengths that have changed by less make no other speed.
SAME = 0.05


@dataclass(frozen=True, slots=True)
class PassDone:
    """A pass as the comparison needs it: its times by what was known before the run, as measured,
    and by the bound; its FLOPs, and its row of the report."""

    planned: PassBound
    measured: PassMeasured
    bound: PassBound
    flops: float
    step: StepRecord


class PlanWatch:
    """Takes in every pass.

    `foresight` is the job as planned, `predicted` what was promised, `lengths` and `corrections`
    are those that the run learns.
    """

    def __init__(
        self,
        foresight: Foresight,
        predicted: Predicted,
        lengths: OutputLengths,
        corrections: Corrections,
    ) -> None:
        self.pace = Pace(
            predicted.seconds,
            predicted.prefill_tokens_per_s,
            predicted.decode_tokens_per_s,
            predicted.output_tokens_per_s,
        )
        self._foresight = foresight
        self._lengths, self._corrections = lengths, corrections
        self._measured = Measurements()
        self._prefill_s = 0.0
        self._prefill_tokens = self._decode_tokens = self._sequences = 0
        self._cause = ""
        self._in_a_row = 0
        self._told = False
        self._reachable: tuple[float, float, float] | None = None

    def add(self, done: PassDone) -> None:
        """Enter a pass; prefill and decode share its time by their rows, as when it is planned."""
        memory_s, step = done.bound.memory_s, done.step
        self._measured.add(
            done.planned,
            done.measured,
            flops=done.flops,
            memory_s=memory_s,
            memory_bytes=memory_s * self._foresight.rates.memory_bytes_per_s,
        )
        rows = max(1, step.prefill_tokens + step.decode_tokens)
        self._prefill_s += step.elapsed_s * step.prefill_tokens / rows
        self._prefill_tokens += step.prefill_tokens
        self._decode_tokens += step.decode_tokens
        self._sequences += step.sequences

    @property
    def planned_seconds(self) -> float:
        """What the whole run will take if passes go on to be as much off the plan as so far."""
        run = self._measured
        off = run.elapsed_s / run.planned_s if run.planned_s else 1.0
        return self.pace.seconds * off

    def compared(self, output_tokens: int, mean_prompt: float) -> Comparison:
        """The run so far against the plan; `output_tokens` are those that were drawn,
        `mean_prompt` tokens of the prompts that have started."""
        run, lengths = self._measured, self._lengths
        planned = self._foresight.lengths
        output = lengths.mean_tokens if lengths.are_seen else 0.0
        decode_s = run.elapsed_s - self._prefill_s
        places = self._foresight.sizes.sequences
        return Comparison(
            planned=self.pace,
            measured=Pace(
                seconds=run.elapsed_s,
                prefill_tokens_per_s=_per_s(self._prefill_tokens, self._prefill_s),
                decode_tokens_per_s=_per_s(self._decode_tokens, decode_s),
                output_tokens_per_s=_per_s(output_tokens, run.elapsed_s),
            ),
            passes=run.passes,
            passes_planned_s=run.planned_s,
            passes_s=run.elapsed_s,
            resources=tuple(run.used(self._corrections)),
            output=Assumed(planned.output, output),
            prompt=Assumed(planned.prompt, mean_prompt),
            together=Assumed(
                min(places, planned.sequences or places), _per_s(self._sequences, run.passes)
            ),
            reachable_tokens_per_s=self._reachable_tokens_per_s(mean_prompt, output),
        )

    def note(self, compared: Callable[[], Comparison]) -> RunNote | None:
        """What is to be said of a gap between plan and run, to be asked after every pass.

        Said once: after the warm-up, and when the same cause has stood for PATIENCE passes.
        """
        total = self._foresight.lengths.sequences
        share = self._lengths.finished / total if total else 0.0
        if self._told or not is_warm(self._measured.passes, share):
            return None
        run = compared()
        explained = explain(run, whole=False)
        cause = "" if explained is None else explained.cause
        self._in_a_row = self._in_a_row + 1 if cause == self._cause else 1
        self._cause = cause
        if explained is None or self._in_a_row < PATIENCE:
            return None
        self._told = True
        figures = {"gap": explained.gap, "cause": cause, "comparison": run.as_json()}
        return RunNote(GAP_EVENT, explained.text, figures)

    def _reachable_tokens_per_s(self, prompt: float, output: float) -> float:
        """What the plan would have promised for these lengths, simulated when they have changed."""
        if not prompt and not output:
            return 0.0
        if self._reachable is not None:
            *lengths, speed = self._reachable
            if all(abs(x - y) <= SAME * y for x, y in zip((prompt, output), lengths, strict=True)):
                return speed
        lengths_found = self._foresight.lengths_with(prompt=prompt, output=output)
        speed = self._foresight.predicted(lengths=lengths_found).output_tokens_per_s
        self._reachable = prompt, output, speed
        return speed


def _per_s(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 else 0.0
