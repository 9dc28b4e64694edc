"""An output in a dataset of the hub, with the hub faked at its border: a commit for each shard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.cli.fake_engine import FakeEngine
from tests.cli.jobs import job_of, prompts
from tests.cli.stores import Runner, rows, runner
from tests.io.test_hub_in import Hub
from tightrun.io.hub_commits import HubFolder, hub_folder
from tightrun.io.output_place import OutputError

__all__ = ["runner"]

URL = "hf://datasets/owner/name/answers"
Commit = tuple[str, list[str]]


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Commit]]:
    """What is committed to a hub without datasets: message and paths, removed ones with a minus."""
    real = fsspec.get_filesystem_class("hf")
    fsspec.register_implementation("hf", Hub, clobber=True)
    made: list[Commit] = []
    repos: set[str] = set()

    def create_repo(_api: Any, repo: str, **about: Any) -> None:
        assert about == {"repo_type": "dataset", "private": True, "exist_ok": True}
        repos.add(repo)

    def create_commit(
        _api: Any, repo: str, operations: list[Any], *, commit_message: str, **about: Any
    ) -> None:
        assert repo in repos
        assert about == {"repo_type": "dataset", "revision": None}
        paths = []
        for operation in operations:
            path = f"/datasets/{repo}/{operation.path_in_repo}"
            if isinstance(operation, huggingface_hub.CommitOperationDelete):
                Hub().rm_file(path)
                paths.append(f"-{operation.path_in_repo}")
            else:
                with operation.as_file() as file:
                    Hub().pipe_file(path, file.read())
                paths.append(operation.path_in_repo)
        made.append((commit_message, paths))

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", create_commit)
    yield made
    fsspec.register_implementation("hf", real, clobber=True)
    MemoryFileSystem.store.clear()


def job_at(folder: Path) -> dict[str, Any]:
    return job_of(folder, prompts(25), output={"path": URL, "shard_rows": 10})


def test_a_shard_and_its_seal_come_in_one_commit(
    runner: Runner, tmp_path: Path, commits: list[Commit]
) -> None:
    assert runner.run("here", job_at(tmp_path)).exit_code == 0
    for shard in range(3):
        (added,) = (
            paths for _, paths in commits if f"answers/data/train-{shard:05d}.parquet" in paths
        )
        assert f"answers/_tightrun/sealed/train-{shard:05d}.bin" in added
    assert [text for _, text in rows("memory://datasets/owner/name/answers")] == [
        f"SAY {number}" for number in range(25)
    ]
    message, removed = commits[-1]
    assert removed == ["-answers/_tightrun/owner.json"]
    assert message == "Remove _tightrun/owner.json"


@pytest.mark.usefixtures("commits")
def test_another_machine_finds_it_finished(runner: Runner, tmp_path: Path) -> None:
    runner.run("here", job_at(tmp_path))
    engine = FakeEngine()
    assert runner.run("there", job_at(tmp_path), engine).done == 25
    assert not engine.seen


@pytest.mark.usefixtures("commits")
def test_a_dataset_is_not_moved_aside(runner: Runner, tmp_path: Path) -> None:
    runner.run("here", job_at(tmp_path))
    with pytest.raises(OutputError, match="another dataset or folder"):
        runner.run("here", job_at(tmp_path), resume="new")


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("hf://datasets/owner/name", HubFolder("owner/name", None, "")),
        ("hf://datasets/owner/name/a/b", HubFolder("owner/name", None, "a/b")),
        ("hf://datasets/owner/name@dev/a", HubFolder("owner/name", "dev", "a")),
        ("hf://datasets/o/n@refs%2Fpr%2F1", HubFolder("o/n", "refs/pr/1", "")),
        ("hf://buckets/owner/name/a", None),
        ("s3://bucket/out", None),
    ],
)
def test_urls_of_the_hub(url: str, folder: HubFolder | None) -> None:
    assert hub_folder(url) == folder
