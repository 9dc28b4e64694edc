"""What a benchmark prints: medians, ratios, a table, and one JSON object as the last line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.machine import VECTORS, hardware, hardware_name, versions
from benchmarks.report import median_of, number, publish, ratios_to, table


def test_the_median_of_an_even_number_lies_between_the_middle_two() -> None:
    assert median_of([1.0, 100.0, 3.0, 5.0]) == 4.0


def test_nothing_measured_has_no_median() -> None:
    assert median_of([]) is None


def test_a_ratio_is_ours_over_theirs_and_null_where_either_is_missing() -> None:
    assert ratios_to(30.0, {"slow": 10.0, "gone": None}) == {"slow": 3.0, "gone": None}
    assert ratios_to(None, {"slow": 10.0}) == {"slow": None}


def test_a_table_aligns_names_to_the_left_and_figures_to_the_right() -> None:
    assert table(("", "speed"), [("ours", "10.5"), ("a", "-")]).splitlines() == [
        "|      | speed |",
        "| :--- | ----: |",
        "| ours |  10.5 |",
        "| a    |     - |",
    ]


def test_a_missing_figure_is_a_dash() -> None:
    assert [number(None), number(1234.56), number(2.345, 2)] == ["-", "1,234.6", "2.35"]


def test_the_last_line_is_the_object_that_is_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"benchmark": "throughput", "ratios": {"gone": None}}
    path = publish(found, "throughput", "two-cores", tmp_path / "results")
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found
    assert json.loads(path.read_text()) == found


def test_the_file_is_named_after_benchmark_hardware_and_date(tmp_path: Path) -> None:
    path = publish({}, "throughput", "two-cores", tmp_path)
    assert path.match("throughput-two-cores-[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].json")


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (
            {"cpu": "AMD EPYC (TM) 9354", "vectors": "avx512_bf16", "cores": 2},
            "amd-epyc-tm-9354-avx512-bf16-2-cores",
        ),
        ({"cpu": "any", "vectors": "", "cores": 8, "device": "NVIDIA H200"}, "nvidia-h200"),
    ],
)
def test_hardware_is_named_by_its_device_or_else_its_processor(
    found: dict[str, Any], name: str
) -> None:
    assert hardware_name(found) == name


def test_hardware_tells_cores_and_memory() -> None:
    found = hardware("NVIDIA H200")
    assert found["cores"] >= 1
    assert found["memory_bytes"] > 2**20
    assert found["vectors"] in (*VECTORS, "")
    assert found["device"] == "NVIDIA H200"


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert versions(["no-such-package"])["no-such-package"] is None
