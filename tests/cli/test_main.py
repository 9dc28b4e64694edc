"""The commands as they are typed, and the codes they end with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cli.fake_engine import FakeEngine, factory
from tests.cli.jobs import job_of, prompts, read, texts, write_rows
from tightrun.cli.engine_seam import RefusedError
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.main import main
from tightrun.core import Request, RowError
from tightrun.io.job import Machine, load_job
from tightrun.policies.plan import DoesNotFitError

Typed = Callable[..., int]


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that the commands get."""
    engine = FakeEngine()
    monkeypatch.setattr("tightrun.cli.perform.start_engine", factory(engine))
    return engine


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Types a command in an empty folder and returns its exit code."""
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.setenv(name, "1")

    def type_in(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        code = ended.value.code
        assert isinstance(code, int) or code is None
        return code or 0

    return type_in


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job file over 20 rows."""
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job_of(tmp_path, prompts(20))))
    return path


def in_a_process(source: str, folder: Path) -> None:
    subprocess.run([sys.executable, "-c", source], check=True, cwd=folder, timeout=120)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["schema"], ["validate", "job.yaml"]]
)
def test_light_commands_do_not_load_torch(tmp_path: Path, job: Path, arguments: list[str]) -> None:
    assert job.exists()
    source = (
        "import sys\n"
        "from tightrun.cli.main import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit as ended:\n"
        "    assert not ended.code, ended.code\n"
        "heavy = {'torch', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    in_a_process(source, tmp_path)


def test_help_loads_neither_arrow_nor_pydantic(tmp_path: Path) -> None:
    source = (
        "import sys\n"
        "from tightrun.cli.main import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'pyarrow', 'pydantic', 'numpy', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    in_a_process(source, tmp_path)


def test_a_job_file_alone_is_run(typed: Typed, job: Path, tmp_path: Path) -> None:
    assert typed(str(job)) == ExitCode.FINISHED
    assert texts(tmp_path / "out") == [f"SAY {number}" for number in range(20)]


def test_version_is_printed(typed: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("--version") == 0
    assert capsys.readouterr().out.startswith("tightrun 0.")


def test_progress_goes_to_standard_error_and_the_summary_to_standard_output(
    typed: Typed, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(str(job))
    out, err = capsys.readouterr()
    assert "Finished: every row is good." in out
    assert "scan     20 rows in 1 file" in err


def test_quiet_prints_nothing_when_all_is_well(
    typed: Typed, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(str(job), "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_quiet_still_tells_of_failed_rows(
    typed: Typed, job: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.rule = lambda r: RowError("internal", "no") if r.row_index == 3 else "yes"
    assert typed(str(job), "--quiet") == ExitCode.ROWS_FAILED
    assert capsys.readouterr().err.splitlines() == [
        "tightrun: Finished: 1 row failed. Output: out",
        "  1 internal, for example row r3: no",
    ]


def test_set_overrides_the_job_file(typed: Typed, job: Path, engine: FakeEngine) -> None:
    typed(str(job), "--set", "sampling.max_tokens=7", "--set", "sampling.seed=3")
    sampling = engine.seen[0].sampling
    assert (sampling.max_tokens, sampling.seed) == (7, 3)


def test_limit_runs_the_first_rows(typed: Typed, job: Path, tmp_path: Path) -> None:
    typed(str(job), "--limit", "3")
    assert read(tmp_path / "out").num_rows == 3


def test_show_prompts_shows_them(
    typed: Typed, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(str(job), "--show-prompts", "1")
    err = capsys.readouterr().err
    assert "say 0" in err
    assert "say 1" not in err


def test_print_config_prints_origins_and_does_not_run(
    typed: Typed, job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(str(job), "--print-config", "--set", "sampling.top_k=5") == 0
    out = capsys.readouterr().out
    assert "top_k: 5" in out
    assert "# --set" in out
    assert not (tmp_path / "out").exists()


def test_allow_failures_turns_failed_rows_into_success(
    typed: Typed, job: Path, engine: FakeEngine
) -> None:
    engine.rule = lambda r: RowError("internal", "no") if r.row_index == 3 else "yes"
    assert typed(str(job), "--allow-failures") == ExitCode.FINISHED
    assert typed(str(job), "--allow-failures=1%", "--resume", "new") == ExitCode.ROWS_FAILED


def test_a_share_that_is_none_is_a_usage_error(
    typed: Typed, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(str(job), "--allow-failures=lots") == ExitCode.USAGE
    assert "lots" in capsys.readouterr().err


def test_json_log_lines_are_json_to_the_end(
    typed: Typed, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(str(job), "--log-format", "json")
    out, err = capsys.readouterr()
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert events[-1] == "summary"
    assert out == ""


def test_an_error_in_the_job_file_has_its_place(
    typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.yaml").write_text(
        "model: .\ninput: {path: x, formt: jsonl}\noutput: {path: o}\n"
    )
    assert typed("job.yaml") == ExitCode.USAGE
    assert "job.yaml:2:18: input.formt: unknown key; did you mean 'format'?" in (
        capsys.readouterr().err
    )


def test_an_input_that_is_not_there_is_a_usage_error(
    typed: Typed, job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").unlink()
    assert typed(str(job)) == ExitCode.USAGE
    assert "in.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RefusedError("mamba keeps a state"), ExitCode.USAGE),
        (DoesNotFitError("does not fit: 3 + 4"), ExitCode.DOES_NOT_FIT),
        (RuntimeError("the cache is gone"), ExitCode.INTERNAL_ERROR),
    ],
)
def test_errors_of_loading_have_their_codes_and_one_line(
    typed: Typed,
    job: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: ExitCode,
) -> None:
    def load(*_: object) -> None:
        raise error

    monkeypatch.setattr("tightrun.cli.perform.start_engine", load)
    assert typed(str(job), "--quiet") == code
    err = capsys.readouterr().err
    assert str(error) in err
    assert err.count("\n") == 1


def test_a_misspelt_command_is_a_usage_error(
    typed: Typed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("statsu", "out") == ExitCode.USAGE
    assert "did you mean 'status'" in capsys.readouterr().err


def test_a_signal_ends_the_run_with_75(
    typed: Typed, job: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    def before(request: Request) -> None:
        if request.row_index == 10:
            os.kill(os.getpid(), signal.SIGUSR2)

    engine.before = before
    lines = [{"id": f"r{n}", "prompt": "x"} for n in range(50_000)]
    write_rows(job.parent / "in.jsonl", lines)
    assert typed(str(job)) == ExitCode.STOPPED
    out, err = capsys.readouterr()
    assert "SIGUSR2 was received" in out
    assert "SIGUSR2: keeping what is finished" in err


def test_batch_runs_an_openai_file_without_a_job_file(typed: Typed, tmp_path: Path) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    write_rows(tmp_path / "in.jsonl", [line])
    (tmp_path / "model").mkdir()
    assert typed("batch", "-i", "in.jsonl", "-o", "out.jsonl", "--model", "model") == 0
    answer = json.loads((tmp_path / "out.jsonl").read_text())
    assert answer["custom_id"] == "a"
    assert answer["response"]["body"]["choices"][0]["message"]["content"] == "HELLO"


def test_validate_lists_bad_lines_with_their_numbers(
    typed: Typed, job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "in.jsonl").open("a") as lines:
        lines.write("{broken\n")
    assert typed("validate", str(job)) == ExitCode.ROWS_FAILED
    out = capsys.readouterr().out
    assert "21 rows in 1 file" in out
    assert "in.jsonl:21: bad_row" in out


def test_validate_of_a_good_job_ends_with_0(
    typed: Typed, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("validate", str(job)) == 0
    assert "every row can be read" in capsys.readouterr().out


def test_schema_is_a_json_schema(typed: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("schema") == 0
    assert "sampling" in json.loads(capsys.readouterr().out)["properties"]


def test_init_writes_a_starter_and_never_replaces_a_file(
    typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("init") == 0
    first = (tmp_path / "job.yaml").read_text()
    assert "model:" in first
    assert typed("init") == ExitCode.USAGE
    assert "already" in capsys.readouterr().err


def test_init_prints_the_starter_for_a_dash(
    typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("init", "-") == 0
    assert "model:" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_report_prints_the_summary_again(
    typed: Typed, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(str(job))
    first = capsys.readouterr().out
    assert typed("report", "out") == 0
    assert capsys.readouterr().out.strip() == first.strip()


def test_report_of_what_is_no_output_says_so(
    typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("report", str(tmp_path)) == ExitCode.USAGE
    assert "is not the output of a job" in capsys.readouterr().err


def test_status_of_a_finished_job(
    typed: Typed, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(str(job))
    capsys.readouterr()
    assert typed("status", "out") == 0
    out = capsys.readouterr().out
    assert "state     complete" in out
    assert "20 of 20 rows done (100 %)" in out


def test_status_as_json(typed: Typed, job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed(str(job))
    capsys.readouterr()
    assert typed("status", "out", "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["state"], status["rows"], status["done"]) == ("complete", 20, 20)


def test_doctor_names_versions_limits_and_what_is_not_proven(
    typed: Typed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("doctor") == 0
    out = capsys.readouterr().out
    for word in ("torch", "transformers", "memory", "kernels", "not yet been proven on a GPU"):
        assert word in out


def test_doctor_says_how_a_device_is_emulated(
    typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it shows can be put into a job as it stands."""
    assert typed("doctor") == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("emulated"))
    job = job_of(tmp_path, prompts(2)) | yaml.safe_load(line[line.index("hardware:") :])
    machine = load_job(job).hardware
    assert isinstance(machine, Machine)
    assert (machine.device, machine.gpu_memory) == ("emulated", 8 * 2**30)


def test_doctor_as_json(typed: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["memory"]["bytes"] > 0
    assert found["cpu"]["processors"] >= 1
    assert found["emulated"] is True
