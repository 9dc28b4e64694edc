"""Datasets of the hub, with the hub faked at its border: held to a commit, read as files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import huggingface_hub
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from huggingface_hub.errors import RepositoryNotFoundError

from tests.io.input_jobs import job_over
from tightrun.core import Request
from tightrun.io.inputs import InputError, read_chunks, scan_inputs
from tightrun.io.job import Job

datasets = pytest.importorskip("datasets")

OLD, NEW = "a" * 40, "b" * 40


class Hub(MemoryFileSystem):
    """The hub's files in memory, at datasets/owner/name@commit/path."""

    protocol = "hf"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("hf://", "memory://")))

    def unstrip_protocol(self, name: str) -> str:
        return "hf:/" + self._strip_protocol(name)


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub whose dataset owner/name has two commits; `main` is the newer one."""
    real = fsspec.get_filesystem_class("hf")
    fsspec.register_implementation("hf", Hub, clobber=True)
    MemoryFileSystem.store.clear()
    made = Hub()
    for commit, word in ((OLD, "old"), (NEW, "new")):
        for split in ("train", "test"):
            path = f"/datasets/owner/name@{commit}/data/{split}.jsonl"
            made.pipe_file(path, f'{{"prompt": "{word} {split}"}}\n'.encode())

    def dataset_info(_self: Any, repo: str, revision: str | None = None) -> Any:
        if repo != "owner/name":
            raise RepositoryNotFoundError("404", response=SimpleNamespace(headers={}, request=None))
        return SimpleNamespace(sha={None: NEW, "main": NEW, "v1": OLD}[revision])

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    yield made
    fsspec.register_implementation("hf", real, clobber=True)
    MemoryFileSystem.store.clear()


def builder_of(module: str, files: dict[str, list[str]]) -> Any:
    kind = type("Builder", (), {"__module__": f"datasets.packaged_modules.{module}"})
    made = kind()
    made.config = SimpleNamespace(data_files=files, field=None, columns=None)
    return made


def texts(job: Job, folder: Path, versions: dict[str, str] | None = None) -> list[Any]:
    scanned = scan_inputs(job, spool=folder, versions=versions)
    found = [item for chunk in read_chunks(scanned, job) for item in chunk.items]
    return [item.prompt for item in found if isinstance(item, Request)]


def job_at(folder: Path, url: str) -> Job:
    return job_over(url, output={"path": str(folder / "out")})


def test_a_url_is_read_at_the_newest_commit_and_says_which(tmp_path: Path) -> None:
    job = job_at(tmp_path, "hf://datasets/owner/name/data/*.jsonl")
    scanned = scan_inputs(job, spool=tmp_path)
    assert scanned.versions["hf://datasets/owner/name@main"] == NEW
    assert [source.name for source in scanned.sources] == ["test.jsonl", "train.jsonl"]
    assert texts(job, tmp_path) == ["new test", "new train"]


def test_a_revision_can_be_named(tmp_path: Path) -> None:
    job = job_at(tmp_path, "hf://datasets/owner/name@v1/data/train.jsonl")
    assert texts(job, tmp_path) == ["old train"]


def test_a_run_that_goes_on_reads_the_commit_it_began_with(tmp_path: Path) -> None:
    job = job_at(tmp_path, "hf://datasets/owner/name/data/train.jsonl")
    before = {"hf://datasets/owner/name@main": OLD}
    assert texts(job, tmp_path, before) == ["old train"]


def test_a_dataset_by_name_is_read_from_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def load(repo: str, name: str | None, revision: str) -> Any:
        asked.append((repo, name, revision))
        base = f"hf://datasets/{repo}@{revision}/data"
        return builder_of(
            "json.json", {split: [f"{base}/{split}.jsonl"] for split in ("train", "test")}
        )

    monkeypatch.setattr(datasets, "load_dataset_builder", load)
    output = {"path": str(tmp_path / "out")}
    job = job_over(None, dataset="owner/name", name="main", split="test", output=output)
    assert texts(job, tmp_path) == ["new test"]
    assert asked[0] == ("owner/name", "main", NEW)
    with pytest.raises(InputError, match=r"several splits \(train, test\)"):
        texts(job_over(None, dataset="owner/name", output=output), tmp_path)
    with pytest.raises(InputError, match=r"no split 'dev', only train, test"):
        texts(job_over(None, dataset="owner/name", split="dev", output=output), tmp_path)


def test_any_other_dataset_is_left_to_load_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    csv = tmp_path / "a.csv"
    csv.write_text("prompt\nfrom csv\n")
    real = datasets.load_dataset
    asked: list[Any] = []

    def load(repo: str, name: str | None, split: str | None, revision: str | None) -> Any:
        asked.append((repo, name, split, revision))
        return real("csv", data_files=str(csv), split="train")

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(
        datasets, "load_dataset_builder", lambda *_a, **_k: builder_of("csv.csv", {"train": ["x"]})
    )
    job = job_over(None, dataset="owner/name", output={"path": str(tmp_path / "out")})
    assert texts(job, tmp_path) == ["from csv"]
    assert set(asked) == {("owner/name", None, None, NEW)}


def test_a_dataset_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dataset owner/other on the hub"):
        texts(job_at(tmp_path, "hf://datasets/owner/other/a.jsonl"), tmp_path)
