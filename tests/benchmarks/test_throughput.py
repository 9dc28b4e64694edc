"""What `benchmarks.throughput` makes of its measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.jobs import JobSize, ModelSize, PreparedJob, dense_flops
from benchmarks.throughput import _parser, bound_share, own_line, peer, people_table, result
from benchmarks.turns import Measurement, Rival, Standing

SIZE = JobSize(2, 1, 9, 50, ModelSize(32, 2, 4, 2, 48, 64))
LENGTHS = (5, 6)


@pytest.fixture
def job(tmp_path: Path) -> PreparedJob:
    return PreparedJob(tmp_path, SIZE, LENGTHS)


def shown(number: int, seconds: float, setting: str = "best", **details: Any) -> Measurement:
    return Measurement(number, setting, SIZE.output_tokens, seconds, 2**30, details)


def standings(error: str | None = None) -> list[Standing]:
    ours = [shown(i, s, outside_seconds=s * 1.25) for i, s in enumerate((2.0, 1.0, 4.0))]
    theirs = [shown(0, 20.0, "worse"), shown(0, 8.0), shown(1, 5.0), shown(2, 2.0)]
    return [
        Standing(Rival("tightrun", {}), ours, error=error),
        Standing(Rival("hf_generate", {}), theirs),
        Standing(Rival("vllm_cpu", {}), error="no interpreter"),
    ]


def test_the_result_has_medians_and_ratios_and_nulls_with_their_errors(job: PreparedJob) -> None:
    found = result(job, 0, standings(), [{256: 1e9}])
    assert found["tokens_per_s"] == {"tightrun": 50.0, "hf_generate": 20.0, "vllm_cpu": None}
    assert found["ratios"] == {"hf_generate": 2.5, "vllm_cpu": None}
    assert found["errors"] == {"vllm_cpu": "no interpreter"}


def test_the_result_keeps_every_run_and_the_setting_that_won(job: PreparedJob) -> None:
    found = result(job, 0, standings(), [{256: 1e9}])
    assert [run["setting"] for run in found["runs"]["hf_generate"]] == ["worse", *["best"] * 3]
    assert found["settings"] == {"tightrun": "best", "hf_generate": "best", "vllm_cpu": None}


def test_the_outside_clock_stands_beside_our_own(job: PreparedJob) -> None:
    assert result(job, 0, standings(), [{256: 1e9}])["tokens_per_s_by_outside_clock"] == 40.0


def test_the_bound_takes_the_best_rate_of_before_and_after(job: PreparedJob) -> None:
    found = result(job, 0, standings(), [{256: 1e6, 512: 3e6}, {256: 2e6, 512: 1e6}])
    assert found["best_product_flops_per_s"] == 3e6
    assert found["bound_share"] == pytest.approx(dense_flops(SIZE, LENGTHS) / 3e6 / 2.0)
    assert found["bound_tokens_per_s"] == pytest.approx(50.0 / found["bound_share"])


def test_a_run_at_the_best_rate_reaches_the_whole_bound() -> None:
    assert bound_share(1e9, 1e8, SIZE, SIZE.output_tokens / 10.0) == pytest.approx(1.0)


def test_if_tightrun_fails_nothing_is_compared(job: PreparedJob) -> None:
    found = result(job, 0, standings(error="killed"), [{256: 1e9}])
    assert found["tokens_per_s"]["tightrun"] is None
    assert found["ratios"] == {"hf_generate": None, "vllm_cpu": None}
    assert found["bound_share"] is None


def test_the_table_has_a_row_for_each_rival_and_how_many_times_as_fast_we_are() -> None:
    ours, generate, vllm = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in people_table(standings()).splitlines()[2:]
    )
    assert ours == ["tightrun", "50.0", "25.0", "100.0", "3", "", "1.0", "best"]
    assert generate == ["hf_generate", "20.0", "12.5", "50.0", "3", "2.50 x", "1.0", "best"]
    assert vllm == ["vllm_cpu", *["-"] * 7]


def test_the_closing_line_tells_share_bound_and_both_clocks(job: PreparedJob) -> None:
    line = own_line(result(job, 0, standings(), [{256: 4e6}]))
    assert "of the bound" in line
    assert "40.0 tokens/s" in line


def test_a_peer_that_was_not_asked_for_is_null_with_that_as_its_error(job: PreparedJob) -> None:
    told = _parser().parse_args(["--peers", "hf_generate"])
    assert peer("hf_continuous", job, told).missing == "left out by --peers"
    assert peer("hf_generate", job, told).missing is None


def test_vllm_needs_an_interpreter_and_runs_in_it(job: PreparedJob) -> None:
    assert peer("vllm_cpu", job, _parser().parse_args([])).missing == (
        "no interpreter was given with --vllm-python"
    )
    told = _parser().parse_args(["--vllm-python", "there/python"])
    assert {command[0] for command in peer("vllm_cpu", job, told).settings.values()} == {
        "there/python"
    }


def test_generate_is_tried_at_three_batch_sizes(job: PreparedJob) -> None:
    commands = peer("hf_generate", job, _parser().parse_args([])).settings.values()
    assert [command[-1] for command in commands] == ["16", "32", "64"]
