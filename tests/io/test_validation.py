"""What `tightrun validate` finds in the input."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.io.input_jobs import job_over, write_lines, write_parquet
from tightrun.io.inputs import InputError
from tightrun.io.validation import PROBLEMS_SHOWN, Problem, validate_inputs


def test_good_input_has_no_problems(tmp_path: Path) -> None:
    write_lines(tmp_path / "in/a.jsonl", [{"id": 1, "prompt": "p"}])
    write_parquet(tmp_path / "in/b.parquet", {"id": [2], "prompt": ["q"], "label": [0]})
    report = validate_inputs(job_over(tmp_path / "in"))
    assert (report.rows, report.files, report.failed) == (2, 2, 0)
    assert report.columns == ("id", "prompt", "label")
    assert report.problems == ()


def test_bad_rows_are_listed_with_their_places(tmp_path: Path) -> None:
    write_lines(tmp_path / "in/a.jsonl", ["", {"prompt": "p"}, {"prompt": 3}])
    write_parquet(tmp_path / "in/b.parquet", {"prompt": ["q", None]})
    report = validate_inputs(job_over(tmp_path / "in"))
    assert report.problems == (
        Problem("a.jsonl:3", "bad_row", "the column 'prompt' must be text, it is a number"),
        Problem("b.parquet#1", "missing_column", "the column 'prompt' is null in this row"),
    )
    assert report.codes == {"bad_row": 1, "missing_column": 1}


def test_the_first_problems_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    lines = [{"prompt": "p"}, *["{"] * 100]
    report = validate_inputs(job_over(write_lines(tmp_path / "a.jsonl", lines)))
    assert len(report.problems) == PROBLEMS_SHOWN
    assert report.codes == {"bad_row": 100}
    assert report.failed == 100


def test_what_would_stop_the_job_stops_the_validation(tmp_path: Path) -> None:
    lines = [{"id": "x", "prompt": "p"}] * 2
    with pytest.raises(InputError, match=r"'x' stands at a\.jsonl:1 and again at a\.jsonl:2"):
        validate_inputs(job_over(write_lines(tmp_path / "a.jsonl", lines)))


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write('{"prompt": "p"}\n')
    assert validate_inputs(job_over(tmp_path / "a.jsonl.gz")).rows == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl.gz"]
