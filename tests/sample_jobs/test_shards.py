"""The shards in the repository are what the generator writes, and the jobs read them whole."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest

from sample_jobs.training.dates_data import SUFFIX, held_out_rows
from sample_jobs.training.evaluate import read_shards
from sample_jobs.training.make_shards import BATCH_FILE, BATCH_ROWS, DATES_FOLDER, write_shards

SHARDS = DATES_FOLDER / "data"


def test_the_shards_on_disk_are_the_rows_of_the_generator() -> None:
    assert read_shards(SHARDS) == held_out_rows()


def test_the_rows_lie_in_two_parquet_and_two_jsonl_shards() -> None:
    kinds = sorted(path.suffix for path in SHARDS.iterdir())
    assert kinds == [".jsonl", ".jsonl", ".parquet", ".parquet"]


def test_writing_the_shards_again_gives_the_same_rows(tmp_path: Path) -> None:
    rows = held_out_rows(count=41)
    write_shards(rows, tmp_path)
    assert read_shards(tmp_path) == rows


def test_parquet_and_jsonl_shards_have_the_same_columns() -> None:
    names = pyarrow.parquet.read_schema(SHARDS / "part-0.parquet").names
    with (SHARDS / "part-1.jsonl").open(encoding="utf-8") as file:
        assert [*json.loads(file.readline())] == names


def test_the_batch_file_asks_the_first_rows_as_completions() -> None:
    lines = [json.loads(line) for line in BATCH_FILE.read_text(encoding="utf-8").splitlines()]
    asked = [(line["custom_id"], line["url"], line["body"]["prompt"]) for line in lines]
    rows = held_out_rows()[:BATCH_ROWS]
    assert asked == [(row.id, "/v1/completions", row.sentence + SUFFIX) for row in rows]


@pytest.mark.parametrize("name", ["dates.yaml", "emulated.yaml", "openai_batch.yaml"])
def test_the_job_file_loads(name: str) -> None:
    job_module = pytest.importorskip("tightrun.io.job")
    job = job_module.load_job(DATES_FOLDER.parent / name)
    assert Path(job.model.path) == DATES_FOLDER / "model"
    assert (job.sampling.max_tokens, job.sampling.temperature) == (12, 0)


def test_the_prompt_of_the_job_is_the_prompt_the_model_was_trained_on() -> None:
    job_module = pytest.importorskip("tightrun.io.job")
    template_module = pytest.importorskip("tightrun.io.template")
    job = job_module.load_job(DATES_FOLDER.parent / "dates.yaml")
    rendered = template_module.PromptTemplate(job.input.template).render({"sentence": "Paid 1 May"})
    assert rendered == "Paid 1 May" + SUFFIX
