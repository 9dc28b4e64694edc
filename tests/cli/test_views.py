"""How a run is shown, and which way fits the place."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from tests.policies.machines import DESKTOP, GIB, MULTI_HEAD, case_of
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.log_format import LogFormat
from tightrun.cli.plan_text import job_plan_sections
from tightrun.cli.progress import Progress
from tightrun.cli.summary import Accuracy, Summary
from tightrun.cli.view_json import JsonView
from tightrun.cli.view_plain import PlainView, closing_text, progress_line
from tightrun.cli.view_quiet import QuietView
from tightrun.cli.view_rich import RichView
from tightrun.cli.views import View, open_view
from tightrun.policies.hardware import Budget, Hardware
from tightrun.policies.plan import Workload
from tightrun.policies.planner import plan_job

HALFWAY = Progress(
    rows=2000,
    done=1000,
    failed=12,
    elapsed_s=60,
    input_tokens_per_s=8120,
    output_tokens_per_s=3412,
    running=64,
    cpu_bytes=1_288_490_188,
    cpu_budget=13_314_398_617,
    share=0.5,
    eta_s=12,
)
GOOD = Summary(
    exit_code=ExitCode.FINISHED,
    outcome="finished",
    output="out",
    rows=2000,
    done=2000,
    failed=0,
    input_tokens=81_120,
    output_tokens=20_411,
    seconds=10.0,
    total_seconds=12.0,
    flops_per_s=1.25e12,
    bound_share=0.713,
    binding="compute",
    peak_gpu_bytes=5 * 2**30,
    gpu_budget=10 * 2**30,
    peak_cpu_bytes=2**30,
    cpu_budget=4 * 2**30,
    accuracy=Accuracy(1992, 2000),
)
STOPPED = Summary(
    exit_code=ExitCode.STOPPED,
    outcome="SIGTERM was received",
    output="out",
    rows=2000,
    done=500,
    failed=20,
    errors={"bad_row": 5, "context_length": 15},
    examples={"bad_row": "row in#3: not JSON", "context_length": "row a: 600 tokens"},
)

PLANNED = plan_job(
    case_of(
        MULTI_HEAD,
        Hardware("cuda:0", Budget(300 * 2**20, "the driver"), Budget(8 * GIB, "the machine"), 4),
        DESKTOP,
        Workload(2000, 1, 400, 300, 100, (100, 200, 300), 100),
    )
)


class Terminal(io.StringIO):
    """A stream that calls itself a terminal."""

    def isatty(self) -> bool:
        return True


def show(view: View) -> None:
    """What a short run would tell a view."""
    view.title("tightrun 0.1.0  job.yaml -> out")
    view.phase("scan")
    view.detail("2,000 rows in 4 files")
    view.phase("run")
    view.plan(PLANNED)
    view.fact("64 sequences together")
    view.note("look at this")
    view.tick(HALFWAY)
    view.detail("2,000 rows")
    view.close(good=True)
    view.closing(GOOD)


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({"TERM": "xterm-256color"}, RichView),
        ({"TERM": "xterm-256color", "CI": "true"}, PlainView),
        ({"TERM": "dumb"}, PlainView),
    ],
)
def test_a_terminal_gets_the_live_view_unless_it_cannot(
    environment: dict[str, str], kind: type
) -> None:
    view = open_view(
        LogFormat.AUTO,
        quiet=False,
        environment=environment,
        progress=Terminal(),
        closing=Terminal(),
    )
    assert type(view) is kind


def test_a_pipe_gets_plain_lines() -> None:
    pipe, environment = io.StringIO(), {"TERM": "xterm"}
    view = open_view(
        LogFormat.AUTO, quiet=False, environment=environment, progress=pipe, closing=pipe
    )
    assert type(view) is PlainView


@pytest.mark.parametrize(
    ("log_format", "kind"),
    [(LogFormat.RICH, RichView), (LogFormat.PLAIN, PlainView), (LogFormat.JSON, JsonView)],
)
def test_what_is_asked_for_is_given(log_format: LogFormat, kind: type) -> None:
    stream = io.StringIO()
    view = open_view(log_format, quiet=False, environment={}, progress=stream, closing=stream)
    assert type(view) is kind


def test_plain_lines_have_a_time_and_are_ascii() -> None:
    progress, closing = io.StringIO(), io.StringIO()
    show(PlainView(progress, closing))
    lines = progress.getvalue().splitlines()
    assert len(lines) > 6
    assert all(re.match(r"\d\d:\d\d:\d\d  ", line) for line in lines)
    assert (progress.getvalue() + closing.getvalue()).isascii()


def test_a_progress_line_tells_rows_rates_memory_and_time() -> None:
    assert progress_line(HALFWAY) == (
        "1,000 of 2,000 rows, 12 failed, 8,120 tok/s in, 3,412 tok/s out, "
        "CPU 1.2 of 12.4 GiB, 12 s left"
    )


def test_plain_lines_tell_the_plan_in_short() -> None:
    progress = io.StringIO()
    PlainView(progress, io.StringIO()).plan(PLANNED)
    lines = [line[19:] for line in progress.getvalue().splitlines()]
    assert len(lines) < 10
    assert re.match(r"2,000 rows in about \d.*, at .* tok/s of output; .* sets the pace$", lines[0])
    assert re.match(r"\d+ of 12 layers and .* are on the GPU$", lines[1])
    assert re.match(r"adaptive: a pass takes \d+ batch", next(x for x in lines if "adaptive" in x))
    assert re.match(r"GPU memory planned: \d+ of 300 MiB \(the driver\)", lines[-2])
    assert re.match(r"CPU memory planned: .* GiB \(the machine\)", lines[-1])


def test_a_terminal_shows_what_the_plan_command_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    progress = Terminal()
    RichView(progress, io.StringIO()).plan(PLANNED)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", progress.getvalue())
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for section in job_plan_sections(PLANNED):
        assert " ".join(f"{section.label} {section.lines[0]}".split()) in lines
        assert " ".join(section.lines[-1].split()) in lines


def test_a_long_phase_says_that_it_lasts() -> None:
    progress = io.StringIO()
    view = PlainView(progress, io.StringIO())
    view.phase("load", "28 layers")
    view.tick(None)
    assert "load     28 layers (0.0 s so far)" in progress.getvalue()


def test_a_phase_that_broke_off_is_told_so() -> None:
    progress = io.StringIO()
    view = PlainView(progress, io.StringIO())
    view.phase("scan", "ids")
    view.close(good=False)
    assert "scan     did not finish" in progress.getvalue()


def test_the_closing_summary_of_a_good_run() -> None:
    assert closing_text(GOOD).splitlines() == [
        "",
        "Finished: every row is good.",
        "  rows      2,000 good, 0 failed",
        "  tokens    81,120 in, 20,411 out",
        "  speed     8,112 tok/s in, 2,041 tok/s out, 1.25 TFLOP/s",
        "  bound     71.3 % of the bound (compute)",
        "  memory    GPU 5.0 of 10.0 GiB, CPU 1.0 of 4.0 GiB at the peak",
        "  accuracy  99.6 % exact match with `expected` (1,992 of 2,000)",
        "  time      12 s, 10 s generating",
        "  output    out",
    ]


def test_the_closing_summary_of_a_stopped_run_says_what_is_kept_and_what_to_do() -> None:
    text = closing_text(STOPPED)
    assert "Stopped: SIGTERM was received." in text
    assert "  rows      480 good, 20 failed, 1,500 not done\n" in text
    assert "            15 context_length, for example row a: 600 tokens\n" in text
    assert "            5 bad_row, for example row in#3: not JSON\n" in text
    assert "500 finished rows" in text
    assert "run the job again to go on from there" in text


def test_json_lines_are_objects_with_time_and_event() -> None:
    stream = io.StringIO()
    show(JsonView(stream))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == [
        "start",
        "phase",
        "phase_end",
        "phase",
        "plan",
        "fact",
        "note",
        "progress",
        "phase_end",
        "summary",
    ]
    assert lines[7]["done"] == 1000
    assert lines[9]["accuracy_share"] == 0.996
    assert lines[4]["schedule"]["batch_size"] == PLANNED.plan.batch_size
    assert all(line["time"].endswith("+00:00") for line in lines)


def test_quiet_says_nothing_while_all_is_well() -> None:
    stream = io.StringIO()
    show(QuietView(stream))
    assert stream.getvalue() == ""


def test_quiet_tells_of_a_run_that_did_not_end_well() -> None:
    stream = io.StringIO()
    QuietView(stream).closing(STOPPED)
    assert stream.getvalue().splitlines() == [
        "tightrun: Stopped: SIGTERM was received. Output: out",
        "  15 context_length, for example row a: 600 tokens",
        "  5 bad_row, for example row in#3: not JSON",
    ]


def test_the_live_view_leaves_finished_phases_and_the_summary() -> None:
    progress, closing = Terminal(), io.StringIO()
    show(RichView(progress, closing))
    left = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", progress.getvalue())
    assert re.search(r"✓ scan +2,000 rows in 4 files", left)
    assert "99.6 % exact match" in closing.getvalue()


def test_the_live_view_has_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    progress = Terminal()
    show(RichView(progress, Terminal()))
    colours = re.findall(r"\x1b\[[0-9;]*m", progress.getvalue())
    codes = {code for sequence in colours for code in re.findall(r"\d+", sequence)}
    assert codes <= {"0", "1", "2"}


def test_the_live_view_gives_the_cursor_back_when_aborted() -> None:
    progress = Terminal()
    view = RichView(progress, Terminal())
    view.phase("run")
    view.abort()
    assert progress.getvalue().endswith("\x1b[?25h")


def test_no_view_loads_what_another_needs(tmp_path: Path) -> None:
    """rich stays out of a pipe: a job of a cron table starts faster."""
    import subprocess
    import sys

    source = (
        "import sys, io\n"
        "from tightrun.cli.log_format import LogFormat\n"
        "from tightrun.cli.views import open_view\n"
        "open_view(LogFormat.PLAIN, quiet=False, environment={})\n"
        "assert not any(name.startswith('rich.live') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", source], check=True, cwd=tmp_path)
