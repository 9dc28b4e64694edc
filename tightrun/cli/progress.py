"""How far a run is: one frozen picture of it, the rates of the last seconds, and the time left."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from tightrun.cli.engine_seam import Snapshot
from tightrun.cli.tally import Tally

PHASES = ("scan", "load", "warm-up", "run", "seal")
_RATE_WINDOW_S = 60.0
# Until the first rows are done, nearly all the time went into prompts and few tokens came out.
_ETA_WITHOUT_ROWS_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A run at one moment. Rates are over the last minute; `eta_s` is None while unknown.

    `share` is the part of all the work that is done: of the time when that is known, else of
    the rows. `planned_output_tokens_per_s` is of the whole run, 0.0 where nothing was planned.
    """

    rows: int
    done: int
    failed: int
    elapsed_s: float
    prompt_tokens: int = 0
    output_tokens: int = 0
    input_tokens_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    running: int = 0
    gpu_bytes: int = 0
    gpu_budget: int = 0
    cpu_bytes: int = 0
    cpu_budget: int = 0
    share: float = 0.0
    eta_s: float | None = None
    planned_output_tokens_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Point:
    at_s: float
    prompt_tokens: int
    output_tokens: int


class Meter:
    """Turns the engine's totals into rates and a time left.

    The time left is the tokens still to come over the tokens made per second of the whole run:
    steadier than the last seconds, and not deceived by rows of different lengths. Before anything
    tells of those tokens, it is what the plan says.
    """

    def __init__(self, started_s: float, samples: int) -> None:
        self._started_s = started_s
        self._samples = samples
        self._share = 0.0
        self._points = deque([_Point(started_s, 0, 0)])

    def measure(self, now_s: float, *, rows: int, counts: Tally, engine: Snapshot) -> Progress:
        """The progress at `now_s`, a time of the same clock as `started_s`."""
        point = _Point(now_s, engine.prompt_tokens, engine.output_tokens)
        self._points.append(point)
        while len(self._points) > 2 and self._points[1].at_s < now_s - _RATE_WINDOW_S:
            self._points.popleft()
        first = self._points[0]
        span_s = max(now_s - first.at_s, 1e-9)
        elapsed_s = now_s - self._started_s
        eta_s = self._eta_s(elapsed_s, rows, counts, engine)
        before = counts.earlier / rows
        share = counts.done / rows
        if eta_s is not None:
            share = before + (1 - before) * elapsed_s / (elapsed_s + eta_s)
        self._share = max(self._share, share)
        return Progress(
            rows=rows,
            done=counts.done,
            failed=counts.failed,
            elapsed_s=elapsed_s,
            prompt_tokens=point.prompt_tokens,
            output_tokens=point.output_tokens,
            input_tokens_per_s=(point.prompt_tokens - first.prompt_tokens) / span_s,
            output_tokens_per_s=(point.output_tokens - first.output_tokens) / span_s,
            running=engine.running,
            gpu_bytes=engine.gpu_bytes,
            gpu_budget=engine.gpu_budget,
            cpu_bytes=engine.cpu_bytes,
            cpu_budget=engine.cpu_budget,
            share=self._share,
            eta_s=eta_s,
            planned_output_tokens_per_s=engine.planned_output_tokens_per_s,
        )

    def _eta_s(self, elapsed_s: float, rows: int, counts: Tally, engine: Snapshot) -> float | None:
        done = counts.done - counts.earlier
        early = done == 0 and elapsed_s < _ETA_WITHOUT_ROWS_AFTER_S
        if early or engine.output_tokens == 0:
            return _by_plan(elapsed_s, engine)
        in_engine = (engine.running + engine.waiting) // self._samples
        unread = max(0, rows - counts.done - in_engine)
        good = done - (counts.failed - counts.earlier_failed)
        each = self._samples * engine.mean_output_tokens
        if not each and good:
            each = counts.output_tokens / good
        if unread and not each:
            return _by_plan(elapsed_s, engine)
        tokens = engine.predicted_remaining_tokens + unread * each
        return tokens * elapsed_s / engine.output_tokens


def together_s(times: Iterable[float | None]) -> float | None:
    """The time left of several runs, each of which would need so long for what is left if it were
    alone; None while none of them knows."""
    pace = sum(1 / time for time in times if time)
    return 1 / pace if pace else None


def _by_plan(elapsed_s: float, engine: Snapshot) -> float | None:
    """What the plan leaves of its time; None where there is none, or where it is over."""
    left_s = engine.planned_seconds - elapsed_s
    return left_s if left_s > 0 else None
