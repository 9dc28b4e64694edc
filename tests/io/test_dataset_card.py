"""README.md of an output: the configurations that loaders read, and the counts people read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.io.finished_rows import bad_row, good_row, made_job, made_scan, write_all
from tightrun.core import RunRecord, StepRecord
from tightrun.io.outputs import OutputWriter, RunInfo
from tightrun.io.reports import ReportWriter


def front_matter(card: str) -> dict[str, object]:
    _, front, _ = card.split("---\n")
    return dict(yaml.safe_load(front))


def test_rows_and_reports_are_configurations(tmp_path: Path) -> None:
    write_all(made_job(tmp_path), [good_row(0)])
    assert front_matter((tmp_path / "README.md").read_text()) == {
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": path}]}
            for name, path in [
                ("default", "data/*.parquet"),
                ("steps", "_tightrun/report/steps/*.parquet"),
                ("runs", "_tightrun/report/runs/*.parquet"),
            ]
        ]
    }


def test_the_words_say_what_came_out(tmp_path: Path) -> None:
    rows = [bad_row(i, "oom" if i else "bad_row") for i in range(3)] + [good_row(3)]
    write_all(made_job(tmp_path), rows)
    card = (tmp_path / "README.md").read_text()
    assert "# Output of model" in card
    assert "The run is complete." in card
    assert "- rows: 4 of 4" in card
    assert "- failed: 3 (1 bad_row, 2 oom)" in card


def test_a_run_that_goes_on_has_a_card_already(tmp_path: Path) -> None:
    writer = OutputWriter(made_job(tmp_path), made_scan(3), run_info=RunInfo(), n=1)
    card = (tmp_path / "README.md").read_text()
    writer.close(final=False)
    assert "has not ended yet" in card


@pytest.mark.parametrize(("name", "rows"), [("default", 2), ("steps", 3), ("runs", 1)])
def test_a_loader_finds_every_table(tmp_path: Path, name: str, rows: int) -> None:
    import datasets

    out = tmp_path / "out"
    write_all(made_job(out), [good_row(0), good_row(1)])
    report = ReportWriter(out / "_tightrun" / "report", run=1)
    for i in range(3):
        report.step(StepRecord(1, i, "mixed", 0.0, 1.0, 1, 1, 1, 1, 1))
    report.run(RunRecord(1, "a", "b", 0, 2, 0, 3, 4, 5.0, 6.0, 7.0, "compute", 0.8))
    report.close()
    loaded = datasets.load_dataset(str(out), name, cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == rows
