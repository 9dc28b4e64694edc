"""`tightrun plan`: what it says to people and to programs, and the code it ends with."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.fake_engine import FakeEngine, factory
from tests.cli.jobs import Listener, job_of, prompts
from tests.cli.tokenizers_on_disk import save_tokenizer
from tests.policies.machines import DESKTOP, GIB, MULTI_HEAD, sizes
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.main import main
from tightrun.cli.plan import STDIN_NOTE
from tightrun.cli.run import RunOptions, run_job
from tightrun.policies.forms import recipe_of
from tightrun.policies.profile import Known, ModelProfile

ROWS = 40
CARD = {
    "device": "emulated",
    "gpu_memory": "400MiB",
    "cpu_memory": "2GiB",
    "h2d": "25GB/s",
    "d2h": "25GB/s",
}
PROFILE = ModelProfile(
    "LlamaForCausalLM",
    "bfloat16",
    MULTI_HEAD,
    sizes(MULTI_HEAD),
    sizes(MULTI_HEAD).layers,
    recipe_of(MULTI_HEAD),
    0,
)


class Planner:
    """Types `tightrun plan` over a job whose model is known."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.err = ""

    def __call__(self, *arguments: str, code: int = 0, **sections: Any) -> str:
        """What it printed to standard output."""
        job = job_of(self.folder, prompts(ROWS), **{"hardware": CARD, **sections})
        path = self.folder / "job.yaml"
        path.write_text(yaml.safe_dump(job))
        with pytest.raises(SystemExit) as ended:
            main(["plan", str(path), *arguments])
        out, self.err = self._capsys.readouterr()
        assert (ended.value.code or 0) == code, self.err
        return out

    def json(self, *arguments: str, code: int = 0, **sections: Any) -> dict[str, Any]:
        """The object it printed."""
        found: dict[str, Any] = json.loads(self("--json", *arguments, code=code, **sections))
        return found


@pytest.fixture
def plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Planner:
    monkeypatch.setattr(
        "tightrun.cli.plan.known_for",
        lambda _job, _notify, given=None: Known(PROFILE, given or DESKTOP),
    )
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.setenv(name, "1")
    save_tokenizer(tmp_path / "model")
    return Planner(tmp_path, capsys)


def test_the_json_has_the_fields_of_the_contract(plan: Planner) -> None:
    found = plan.json()
    assert found["feasible"] is True
    assert found["model"]["params"] == MULTI_HEAD.parameters
    assert found["model"]["bytes"] == MULTI_HEAD.weight_bytes
    assert found["model"]["kv_bytes_per_token"] == MULTI_HEAD.kv_bytes_per_token
    placement = found["placement"]
    assert placement["resident_layers"] + placement["streamed_layers"] == len(MULTI_HEAD.layers)
    assert placement["disk_layers"] <= placement["streamed_layers"]
    assert {"batch_size", "batches", "prefill_tokens"} <= found["schedule"].keys()
    assert {"prefill_tokens_per_s", "decode_tokens_per_s", "output_tokens_per_s"} <= found[
        "predicted"
    ].keys()
    assert found["predicted"]["seconds"] > 0
    assert found["predicted"]["binding"] in found["predicted"]["busy_s"]
    assert found["reasons"]


def test_planned_memory_is_within_what_may_be_used(plan: Planner) -> None:
    found = plan.json()
    for memory in ("gpu", "cpu"):
        planned = sum(found["memory"][memory].values())
        assert 0 < planned <= found["hardware"][f"{memory}_memory"]["bytes"]


def test_the_input_is_told_in_rows_and_tokens(plan: Planner) -> None:
    found = plan.json()["input"]
    assert found["rows"] == ROWS
    assert found["prompt_tokens"] == sum(len(row["prompt"]) for row in prompts(ROWS))
    assert (found["bytes_per_token"], found["sampled_rows"]) == (1, ROWS)
    assert found["output_tokens"] == 256


def test_a_limit_plans_the_first_rows_only(plan: Planner) -> None:
    assert plan.json("--limit", "20")["input"]["rows"] == 20


def test_a_job_that_does_not_fit_ends_with_4_and_settings_that_do(plan: Planner) -> None:
    small = {**CARD, "gpu_memory": "100MiB"}
    found = plan.json(code=ExitCode.DOES_NOT_FIT, hardware=small)
    assert found["feasible"] is False
    assert "does not fit" in found["reasons"][0]
    assert found["predicted"] is None
    assert "limits.gpu_memory" in [each["key"] for each in found["nearest"]]
    text = plan(code=ExitCode.DOES_NOT_FIT, hardware=small)
    assert "does not fit" in text
    assert "limits.gpu_memory: " in text


def test_people_are_told_what_goes_where_and_how_fast(plan: Planner) -> None:
    text = plan()
    for word in ("placement", "schedule", "memory", "may be used", "sets the pace", "faster"):
        assert word in text
    assert "1.00 bytes per token (counted in 40 rows, +-0.0 %)" in text
    assert len(text.splitlines()) <= 40


def test_nothing_is_written(plan: Planner) -> None:
    plan()
    assert sorted(path.name for path in plan.folder.iterdir()) == ["in.jsonl", "job.yaml", "model"]


def test_standard_input_is_planned_and_that_it_is_gone_is_said(
    plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in prompts(30))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert plan.json(input={"path": "-"})["input"]["rows"] == 30
    assert STDIN_NOTE in plan.err


def test_a_gpu_that_holds_everything_is_told_of_vllm(
    plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tightrun.policies.hardware import Budget, Hardware

    roomy = Hardware("cuda:0", Budget(80 * GIB, "free"), Budget(80 * GIB, "free"), 8)
    monkeypatch.setattr("tightrun.cli.planning.hardware_of", lambda _job: roomy)
    assert "vLLM may be faster" in plan(hardware="auto")


RTX = {
    "device": "cuda",
    "gpu_memory": "24GiB",
    "cpu_memory": "128GiB",
    "h2d": "25GB/s",
    "d2h": "25GB/s",
    "device_bandwidth": "1000GB/s",
    "flops": {64: "50TFLOP/s", 2048: "150TFLOP/s"},
}


def machine_file(plan: Planner, values: dict[str, Any]) -> str:
    path = plan.folder / "machine.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def test_another_machine_is_planned_for_from_its_description(plan: Planner) -> None:
    found = plan.json("--hardware", machine_file(plan, RTX))["hardware"]
    assert found["device"] == "cuda:0"
    assert found["h2d_bytes_per_s"] == 25e9
    assert found["flops_per_s"] == {"64": 5e13, "2048": 1.5e14}
    assert found["cores"] is None


def test_shares_in_limits_are_of_the_memories_described(plan: Planner) -> None:
    file = machine_file(plan, RTX)
    limits = {"gpu_memory": "50%", "cpu_memory": "64GiB"}
    found = plan.json("--hardware", file, limits=limits)["hardware"]
    assert found["gpu_memory"]["bytes"] == 12 * GIB
    assert found["cpu_memory"]["bytes"] == 64 * GIB


def test_every_figure_that_a_description_lacks_is_named_with_usual_ones(plan: Planner) -> None:
    file = machine_file(plan, {"device": "cuda", "gpu_memory": "24GiB", "d2h": "25GB/s"})
    plan("--hardware", file, code=ExitCode.USAGE)
    assert "lacks cpu_memory, flops, device_bandwidth, h2d. Usual are" in plan.err
    assert "h2d: 12GB/s (PCIe 3 x16)" in plan.err


def test_a_cpu_needs_other_figures_than_a_gpu(plan: Planner) -> None:
    plan("--hardware", machine_file(plan, {"device": "cpu"}), code=ExitCode.USAGE)
    assert "lacks cpu_memory, host_bandwidth, flops. Usual are" in plan.err


def test_the_rate_of_a_disk_is_needed_where_weights_must_lie_there(plan: Planner) -> None:
    small = {**RTX, "gpu_memory": "320MiB", "cpu_memory": "150MiB"}
    plan("--hardware", machine_file(plan, small), code=ExitCode.USAGE)
    assert "lacks disk_read. Usual are" in plan.err
    with_disk = machine_file(plan, {**small, "disk_read": "3GB/s"})
    assert plan.json("--hardware", with_disk)["placement"]["disk_layers"] > 0


def test_a_disk_without_room_is_not_asked_for_its_rate(plan: Planner) -> None:
    small = {**RTX, "gpu_memory": "320MiB", "cpu_memory": "150MiB", "disk": 0}
    plan("--hardware", machine_file(plan, small), code=ExitCode.DOES_NOT_FIT)


def test_an_emulated_machine_is_measured_where_it_says_nothing(plan: Planner) -> None:
    found = plan.json("--hardware", machine_file(plan, {**CARD, "gpu_memory": "500MiB"}))
    assert found["hardware"]["device"] == "emulated"
    assert found["hardware"]["gpu_memory"]["bytes"] == int(0.9 * 500 * 2**20)


def test_a_mistake_in_a_description_has_its_place(plan: Planner) -> None:
    path = plan.folder / "machine.yaml"
    path.write_text("device: cuda\ngpu_memory: 24\n")
    plan("--hardware", str(path), code=ExitCode.USAGE)
    assert "machine.yaml:2:13: gpu_memory" in plan.err


def test_a_dry_run_is_the_plan(plan: Planner, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan()
    with pytest.raises(SystemExit) as ended:
        main(["run", str(plan.folder / "job.yaml"), "--dry-run"])
    assert not ended.value.code
    assert capsys.readouterr().out == planned
    assert not (plan.folder / "out").exists()


def test_outputs_are_expected_as_long_as_in_an_earlier_run(plan: Planner) -> None:
    plan()
    options = RunOptions(resume="new")
    job = plan.folder / "job.yaml"
    run_job(job, options, view=Listener(), engine_factory=factory(FakeEngine()))
    found = plan.json()["input"]
    # It answered with two tokens of the 256 allowed.
    assert (found["output_tokens"], found["output_learnt"]) == (2, True)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_is_told_the_same_in_lines_that_fit_it(
    plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = plan()
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(SystemExit):
        main(["plan", str(plan.folder / "job.yaml")])
    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).replace("±", "+-")
    assert shown.split() == plain.split()
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80
