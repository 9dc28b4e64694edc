"""What was written to a shard reads back as it was, as far as the format has words for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.io.finished_rows import completions, good_row, made_job, write_all
from tightrun.core import Completion
from tightrun.io.manifest import read_manifest
from tightrun.io.openai_back import row_of_line
from tightrun.io.openai_out import CHAT_URL, COMPLETIONS_URL, response_line
from tightrun.io.read_back import rows_of_shard
from tightrun.io.row_record import Finished
from tightrun.io.single_file import Part

EVERYTHING: dict[str, Any] = {"n": 3, "logprobs": 3}


def rows(count: int) -> st.SearchStrategy[list[Completion]]:
    return st.tuples(*map(completions, range(count))).map(list)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(written=rows(4))
def test_rows_read_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, form: str, written: list[Completion]
) -> None:
    out = tmp_path_factory.mktemp("run")
    job = made_job(out, output={"format": form}, sampling=EVERYTHING)
    writer = write_all(job, written, n=3)
    manifest = read_manifest(writer.place.manifest)
    assert manifest is not None
    [path] = writer.outputs
    read = rows_of_shard(Part(path), form, manifest.columns, 0)
    assert [finished.completion for finished in read] == written


def test_kept_columns_with_names_of_results_are_not_taken_for_them(tmp_path: Path) -> None:
    columns = pa.table({"samples": ["mine"], "logprobs": [1], "text": ["in"]})
    row = good_row(0)
    writer = write_all(made_job(tmp_path), [row], columns=columns)
    manifest = read_manifest(writer.place.manifest)
    assert manifest is not None
    [read] = rows_of_shard(Part(writer.outputs[0]), "parquet", manifest.columns, 0)
    assert read.completion == row


@settings(deadline=None)
@given(completions(row=5), st.sampled_from([CHAT_URL, COMPLETIONS_URL]))
def test_a_line_that_is_read_back_is_written_as_it_was(row: Completion, url: str) -> None:
    row = replace(row, attempt=0)
    line = response_line(Finished(row, 12), url, "model", "job")
    again = row_of_line(line, 5)
    assert response_line(again, url, "model", "job") == line
