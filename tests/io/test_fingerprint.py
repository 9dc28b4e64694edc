"""The fingerprint: what makes two runs the same job, and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.io.finished_rows import made_job, made_scan
from tightrun.io.fingerprint import differences, fingerprint, fingerprint_parts


def print_of(rows: int = 3, **sections: Any) -> str:
    return fingerprint(fingerprint_parts(made_job("out", **sections), made_scan(rows)))


@pytest.mark.parametrize(
    "sections",
    [
        {"output": {"path": "elsewhere", "format": "jsonl", "keep_columns": "none"}},
        {"policy": {"name": "sync", "batch_size": 3}},
        {"hardware": "cpu"},
        {"limits": {"gpu_memory": "10GiB", "context": 512}},
        {"input": {"path": "renamed.jsonl"}},
    ],
)
def test_where_and_how_a_job_runs_does_not_change_it(sections: dict[str, Any]) -> None:
    assert print_of(**sections) == print_of()


@pytest.mark.parametrize(
    "sections",
    [
        {"model": "org/other"},
        {"model": {"path": "org/model", "revision": "main"}},
        {"model": {"path": "org/model", "dtype": "float32"}},
        {"sampling": {"seed": 1}},
        {"sampling": {"n": 2}},
        {"input": {"prompt": "question"}},
        {"input": {"template": "{{ question }}?"}},
        {"input": {"system": "Be terse."}},
        {"input": {"chat": False}},
        {"on_overflow": "truncate_left"},
        {"rows": 4},
    ],
)
def test_what_the_rows_come_from_changes_the_job(sections: dict[str, Any]) -> None:
    assert print_of(**sections) != print_of()


def make_model(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")


def test_a_local_model_is_known_by_its_files_not_by_its_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_model(tmp_path / name)
    assert print_of(model=str(tmp_path / "a")) == print_of(model=str(tmp_path / "b"))


@pytest.mark.parametrize("name", ["config.json", "chat_template.jinja", "model.safetensors"])
def test_a_changed_file_of_the_model_changes_the_job(tmp_path: Path, name: str) -> None:
    make_model(tmp_path / "a")
    before = print_of(model=str(tmp_path / "a"))
    (tmp_path / "a" / name).write_bytes(b"something else")
    assert print_of(model=str(tmp_path / "a")) != before


def test_differences_name_each_value_that_changed() -> None:
    old = {"a": {"b": 1, "c": [1]}, "d": None}
    new = {"a": {"b": 2, "c": [1]}, "d": {"e": 1}}
    assert list(differences(old, new)) == ["a.b: 1 -> 2", "d: None -> {'e': 1}"]
