"""What a pass leaves behind: a row of the report, and for some passes a piece of the trace."""

from __future__ import annotations

from tightrun.core import StepRecord, TraceSpan
from tightrun.io.reports import ReportWriter
from tightrun.io.trace import TraceWriter

FIRST_PASSES = 64
OFF_PLAN = 0.25


class PassLog:
    """Takes what the engine tells of each pass; `spans` are those of the last `step`."""

    def __init__(self, reports: ReportWriter, trace: TraceWriter) -> None:
        self._reports, self._trace = reports, trace
        self._passes = 0
        self._traced: StepRecord | None = None

    def step(self, record: StepRecord) -> None:
        """Enters a pass in the report."""
        self._reports.step(record)
        self._passes += 1
        self._traced = record if self._passes <= FIRST_PASSES or is_off_plan(record) else None

    def spans(self, spans: list[TraceSpan]) -> None:
        """Enters the pass in the trace, if it is an early one or one that went off plan."""
        if self._traced is not None:
            self._trace.add(self._traced, spans)


def is_off_plan(record: StepRecord) -> bool:
    """Whether a pass took a quarter more or less time than was predicted, where that was done."""
    off_s = abs(record.elapsed_s - record.predicted_s)
    return record.predicted_s > 0 and off_s > OFF_PLAN * record.predicted_s
