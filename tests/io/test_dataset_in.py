"""Hugging Face datasets on local disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.io.input_jobs import items, job_over, kept, prompts, scan, write_lines
from tightrun.io.inputs import InputError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def rows(count: int) -> Any:
    return datasets.Dataset.from_dict(
        {"uid": [f"u{i}" for i in range(count)], "prompt": [f"p{i}" for i in range(count)]}
    )


def test_a_saved_dataset_is_read_from_its_path(tmp_path: Path) -> None:
    rows(2500).save_to_disk(tmp_path / "saved")
    job = job_over(tmp_path / "saved")
    found = items(job)
    assert [item.id for item in found] == [f"u{i}" for i in range(2500)]
    assert scan(job).format == "dataset"


def test_a_shuffled_dataset_keeps_its_order(tmp_path: Path) -> None:
    shuffled = rows(50).shuffle(seed=1)
    shuffled.save_to_disk(tmp_path / "saved")
    assert prompts(job_over(tmp_path / "saved")) == shuffled["prompt"][:]


def test_reading_can_begin_at_any_row(tmp_path: Path) -> None:
    rows(2500).save_to_disk(tmp_path / "saved")
    found = items(job_over(tmp_path / "saved"), start_row=2499)
    assert [item.id for item in found] == ["u2499"]


def test_a_split_is_chosen_in_the_words_of_load_dataset(tmp_path: Path) -> None:
    splits = {"train": rows(3), "test": rows(2)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    job = job_over(None, dataset=str(tmp_path / "saved"), split="test")
    assert [source.name for source in scan(job, tmp_path).sources] == ["saved/test"]
    assert prompts(job) == ["p0", "p1"]


def test_several_splits_without_a_choice_are_refused(tmp_path: Path) -> None:
    splits = {"train": rows(3), "test": rows(2)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match=r"several splits \(train, test\); choose one"):
        scan(job_over(tmp_path / "saved"))
    with pytest.raises(InputError, match=r"no split 'dev', only train, test"):
        scan(job_over(None, dataset=str(tmp_path / "saved"), split="dev"), tmp_path)


def test_a_local_folder_is_read_as_load_dataset_does(tmp_path: Path) -> None:
    write_lines(tmp_path / "data/train.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    job = job_over(None, dataset=str(tmp_path / "data"), split="train[1:]")
    assert prompts(job) == ["b"]
    assert kept(job) == [{"prompt": "b"}]


def test_a_damaged_dataset_is_named(tmp_path: Path) -> None:
    rows(5).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved/dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="saved cannot be read as a dataset"):
        scan(job_over(tmp_path / "saved"))
