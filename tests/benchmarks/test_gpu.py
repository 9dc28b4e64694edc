"""What `benchmarks.gpu` makes of its measurements, and what it does without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.gpu import cases
from benchmarks.gpu.__main__ import NO_DEVICE, _parser, cases_table, main, measure_case
from benchmarks.gpu.cases import Case, best_batch, run_accelerate, run_flexllmgen
from benchmarks.gpu.figures import case, decode_bound_share, left_out, whole_job_tokens_per_s
from benchmarks.gpu.models import GIB, SHAPES, why_not
from benchmarks.workloads import FIXED, SHAREGPT
from tests.benchmarks.test_offload_figures import step


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_measures_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == NO_DEVICE
    assert "needs a CUDA device" in capsys.readouterr().err


def test_the_share_of_the_bound_is_of_the_passes_that_only_decode() -> None:
    steps = [step(2.0, bound_s=1.0), step(2.0, bound_s=2.0), step(50.0, phase="prefill")]
    assert decode_bound_share(steps) == pytest.approx(0.75)
    assert decode_bound_share(steps[2:]) is None


def test_a_job_of_which_a_few_passes_were_run_goes_on_as_they_did() -> None:
    assert whole_job_tokens_per_s([8.0, 1.0, 3.0, 2.0], 16, 32) == pytest.approx(512 / (8 + 62))


def test_one_pass_says_nothing_about_decoding() -> None:
    with pytest.raises(ValueError, match="at least one decode pass"):
        whole_job_tokens_per_s([8.0], 16, 32)


def test_a_case_has_ratios_to_each_that_ran_and_the_errors_of_the_others() -> None:
    shown = {
        "adaptive": {"tokens_per_s": 30.0, "bound_share": 0.9},
        "static": {"tokens_per_s": 15.0},
        "accelerate": {"error": "killed"},
    }
    found = case("m", 16 * GIB, "512-32", shown)
    assert found["tokens_per_s"] == 30.0
    assert found["bound_share"] == 0.9
    assert found["ratios"] == {"static": 2.0, "accelerate": None}
    assert found["errors"] == {"accelerate": "killed"}


def test_a_case_that_was_left_out_is_null_with_its_reason() -> None:
    found = case("m", 16 * GIB, "512-32", left_out(["adaptive", "static"], "no time"))
    assert found["tokens_per_s"] is None
    assert found["ratios"] == {"static": None}
    assert found["errors"]["adaptive"] == "no time"
    assert "no time" in cases_table([found])


def test_a_model_larger_than_host_memory_is_left_out_with_the_sum(tmp_path: Path) -> None:
    assert why_not(10**15, 0, tmp_path) is not None
    assert "host memory" in str(why_not(10**15, 0, tmp_path))
    assert why_not(1, 1, tmp_path) is None


def test_the_fastest_batch_counts_unless_none_ran() -> None:
    assert best_batch({"16": {"tokens_per_s": 1.0}, "48": {"tokens_per_s": 2.0}})["batch"] == 48
    assert best_batch({"16": {"error": "killed"}}) == {"error": "batch 16: killed"}


def test_only_the_peers_asked_for_are_compared_with_while_there_is_time(
    mixed: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_case: Case, policy: str) -> dict[str, float]:
        return {"tokens_per_s": {"adaptive": 30.0, "static": 20.0}[policy]}

    monkeypatch.setattr(cases, "run_policy", run)
    told = _parser().parse_args(["--peers", "static,accelerate"])
    found = measure_case(mixed, told, ends=float("inf"))
    assert found["ratios"] == {"static": 1.5, "accelerate": None}
    assert "mixed lengths" in found["errors"]["accelerate"]
    assert measure_case(mixed, told, ends=0.0)["errors"]["static"] == "no time was left"


@pytest.fixture
def mixed(tmp_path: Path) -> Case:
    shape = SHAPES["opt-30b"]
    return Case("opt-30b", shape, shape.config(), tmp_path, 16 * GIB, SHAREGPT, 4, 0, tmp_path)


def test_rivals_that_pad_are_compared_on_rows_of_one_length(mixed: Case) -> None:
    assert "mixed lengths" in run_accelerate(mixed)["error"]
    assert "one length" in run_flexllmgen(mixed, "python")["error"]


def test_rows_of_mixed_lengths_say_how_many_tokens_they_want(mixed: Case) -> None:
    lines = mixed.write_rows().read_text().splitlines()
    assert len(lines) == 4
    assert all("max_tokens" in line for line in lines)


def test_flexllmgen_that_is_not_installed_is_null_with_its_error(tmp_path: Path) -> None:
    shape = SHAPES["opt-30b"]
    wanted = Case("opt-30b", shape, shape.config(), tmp_path, 16 * GIB, FIXED, 4, 0, tmp_path)
    assert "No module named" in run_flexllmgen(wanted, __import__("sys").executable)["error"]


def test_sizes_of_memory_are_whole_gibibytes() -> None:
    assert _parser().parse_args(["--memory", "8,16"]).memory == (8, 16)
    with pytest.raises(SystemExit):
        _parser().parse_args(["--memory", "8.5"])
