"""What a run came to: the value that `tightrun.run` returns and the closing lines show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tightrun.cli import units
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.plan_lines import plan_lines
from tightrun.policies.explain import explain
from tightrun.policies.measured import Comparison


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Rows whose text equals the input column `expected`, both stripped, of those that have one."""

    right: int
    rows: int

    @property
    def share(self) -> float:
        return self.right / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """One run of a job. Tokens are those of finished rows; `seconds` is the time of generation,
    `total_seconds` includes scan, load, warm-up and sealing; peaks and budgets are in bytes. Of the
    rows that are `done` and `failed`, `earlier` and `earlier_failed` are those of earlier runs, and
    of others where several share the output: then the `outcome` of all but one is "left".

    `errors` counts failed rows by code, and `examples` has one row of each. The rates of the links
    are means over the passes, `recompute_ratio` is the recomputed share of the context that was
    off the device, `comparison` is the run against its plan.
    """

    exit_code: int
    outcome: str
    output: str
    rows: int
    done: int
    failed: int
    earlier: int = 0
    earlier_failed: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    total_seconds: float = 0.0
    flops_per_s: float = 0.0
    bound_share: float = 0.0
    binding: str = ""
    peak_gpu_bytes: int = 0
    gpu_budget: int = 0
    peak_cpu_bytes: int = 0
    cpu_budget: int = 0
    h2d_bytes_per_s: float = 0.0
    d2h_bytes_per_s: float = 0.0
    disk_bytes_per_s: float = 0.0
    idle_s: float = 0.0
    recompute_ratio: float = 0.0
    recompute_form: str = ""
    comparison: Comparison = field(default_factory=Comparison)
    accuracy: Accuracy | None = None
    shared: bool = False

    @property
    def left(self) -> bool:
        """Whether others, who share the output, see to what is not done."""
        return self.shared and self.outcome == "left"

    @property
    def whole(self) -> bool:
        """Whether every row came to its end, and in this run."""
        return self.done == self.rows and not self.earlier

    @property
    def good(self) -> int:
        return self.done - self.failed

    @property
    def input_tokens_per_s(self) -> float:
        return self.input_tokens / self.seconds if self.seconds else 0.0

    @property
    def output_tokens_per_s(self) -> float:
        return self.output_tokens / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """Everything in the summary as plain JSON values."""
        derived: dict[str, Any] = {
            "good": self.good,
            "input_tokens_per_s": self.input_tokens_per_s,
            "output_tokens_per_s": self.output_tokens_per_s,
        }
        explained = explain(self.comparison, whole=self.whole)
        if explained is not None:
            derived["explanation"] = asdict(explained)
        if self.accuracy is not None:
            derived["accuracy_share"] = self.accuracy.share
        return {**asdict(self), **derived}


def closing_lines(summary: Summary) -> list[tuple[str, str]]:
    """The closing summary as (label, text); what was not measured has no line."""
    rows = [("rows", _rows(summary)), *(("", line) for line in error_lines(summary))]
    against_plan = plan_lines(summary.comparison, whole=summary.whole)
    work = [
        ("tokens", _tokens(summary)),
        ("speed", _speed(summary)),
        *((("plan" if n == 0 else ""), line) for n, line in enumerate(against_plan)),
        ("links", _links(summary)),
        ("context", _context(summary)),
        ("bound", _bound(summary)),
    ]
    lines = [
        *rows,
        *(work if summary.done else []),
        ("memory", _memory(summary)),
        ("accuracy", _accuracy(summary)),
        ("time", _time(summary)),
        ("output", summary.output),
        ("kept", _kept(summary)),
    ]
    return [(label, text) for label, text in lines if text]


def headline(summary: Summary) -> str:
    """How the run ended, in one line."""
    if summary.left:
        return "Done here: the runs that share the output see to the rest."
    if summary.exit_code == ExitCode.FINISHED and summary.failed == 0:
        return "Finished: every row is good."
    if summary.exit_code in (ExitCode.FINISHED, ExitCode.ROWS_FAILED):
        return f"Finished: {units.rows(summary.failed)} failed."
    return f"Stopped: {summary.outcome}."


def error_lines(summary: Summary) -> list[str]:
    """The errors, the commonest first: how many rows, and one of them to look at."""
    ranked = sorted(summary.errors.items(), key=lambda item: (-item[1], item[0]))
    return [
        f"{units.count(number)} {code}"
        + (f", for example {summary.examples[code]}" if code in summary.examples else "")
        for code, number in ranked
    ]


def short_path(output: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(output.relative_to(Path.cwd()))
    except ValueError:
        return str(output)


def _rows(summary: Summary) -> str:
    text = f"{units.count(summary.good)} good, {units.count(summary.failed)} failed"
    if summary.done < summary.rows:
        text += f", {units.count(summary.rows - summary.done)} not done"
    if summary.earlier:
        text += (
            f" ({units.count(summary.earlier)} by {'other' if summary.shared else 'earlier'} runs)"
        )
    return text


def _tokens(summary: Summary) -> str:
    if not summary.input_tokens:
        return ""
    return f"{units.count(summary.input_tokens)} in, {units.count(summary.output_tokens)} out"


def _speed(summary: Summary) -> str:
    if not summary.seconds or not summary.output_tokens:
        return ""
    parts = [
        f"{units.rate(summary.input_tokens_per_s)} in",
        f"{units.rate(summary.output_tokens_per_s)} out",
    ]
    if summary.flops_per_s:
        parts.append(units.flops(summary.flops_per_s))
    return ", ".join(parts)


def _memory(summary: Summary) -> str:
    parts = []
    if summary.gpu_budget:
        parts.append(f"GPU {units.size_of(summary.peak_gpu_bytes, summary.gpu_budget)}")
    if summary.peak_cpu_bytes:
        parts.append(f"CPU {units.size_of(summary.peak_cpu_bytes, summary.cpu_budget)}")
    return ", ".join(parts) + " at the peak" if parts else ""


def _bound(summary: Summary) -> str:
    if not summary.bound_share:
        return ""
    return f"{units.percent(summary.bound_share)} of the bound ({summary.binding})"


def _links(summary: Summary) -> str:
    """How fast the links were over the whole run, and how long the device waited for them."""
    rates = {
        "to the device": summary.h2d_bytes_per_s,
        "from the device": summary.d2h_bytes_per_s,
        "from disk": summary.disk_bytes_per_s,
    }
    parts = [f"{units.bandwidth(rate)} {way}" for way, rate in rates.items() if rate]
    if parts and summary.seconds:
        share = units.percent(summary.idle_s / summary.seconds)
        parts.append(f"device idle {units.duration(summary.idle_s)} ({share})")
    return ", ".join(parts)


def _context(summary: Summary) -> str:
    if not summary.recompute_ratio:
        return ""
    share = units.percent(summary.recompute_ratio)
    form = f" from {summary.recompute_form}" if summary.recompute_form else ""
    return f"{share} of what lay off the device was recomputed{form}"


def _accuracy(summary: Summary) -> str:
    accuracy = summary.accuracy
    if accuracy is None:
        return ""
    return (
        f"{units.percent(accuracy.share)} exact match with `expected` "
        f"({units.count(accuracy.right)} of {units.count(accuracy.rows)})"
    )


def _kept(summary: Summary) -> str:
    if summary.done == summary.rows or summary.left:
        return ""
    if not summary.done:
        return "no row was finished; run the job again"
    rows = "row" if summary.done == 1 else "rows"
    return (
        f"{units.count(summary.done)} finished {rows}, and what the others have drawn; run the job "
        "again to go on from there"
    )


def _time(summary: Summary) -> str:
    if not summary.total_seconds:
        return ""
    return f"{units.duration(summary.total_seconds)}, {units.duration(summary.seconds)} generating"
