"""Writing to a dataset of the Hugging Face hub: files that belong together in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

from tightrun.io.hub import DATASET_URL
from tightrun.io.output_place import OutputError

_DATASETS = "hf://datasets/"


class HubFolder(NamedTuple):
    """A folder of a dataset on the hub; `revision` is a branch, None the main one."""

    repo: str
    revision: str | None
    folder: str


class _File(Protocol):
    @property
    def content(self) -> Path | bytes: ...

    @property
    def name(self) -> str: ...


def hub_folder(url: str) -> HubFolder | None:
    """The folder of the hub that a URL names; None where files are not written by commits.

    Raises OutputError for what is no dataset.
    """
    if not url.startswith("hf://") or url.startswith("hf://buckets/"):
        return None
    parts = DATASET_URL.fullmatch(url)
    if parts is None:
        raise OutputError(
            f"output.path: {url} is no dataset of the hub; write it as {_DATASETS}OWNER/NAME"
        )
    revision = parts["revision"]
    branch = None if revision is None else unquote(revision)
    return HubFolder(parts["repo"], branch, (parts["rest"] or "").strip("/"))


class HubCommits:
    """Writes to a folder of a dataset, which is made, private, if it is not there."""

    cheap = False

    def __init__(self, place: HubFolder) -> None:
        self._place = place

    def make(self) -> None:
        _api().create_repo(self._place.repo, repo_type="dataset", private=True, exist_ok=True)

    def put(self, files: Sequence[_File]) -> None:
        from huggingface_hub import CommitOperationAdd

        added = [
            CommitOperationAdd(path_in_repo=self._full(file.name), path_or_fileobj=file.content)
            for file in files
        ]
        self._commit(added, f"Add {files[0].name}")

    def remove(self, names: Sequence[str]) -> None:
        from huggingface_hub import CommitOperationDelete

        self._commit(
            [CommitOperationDelete(path_in_repo=self._full(name)) for name in names],
            f"Remove {names[0]}",
        )

    def move(self, names: Sequence[str], ending: str) -> None:
        raise OutputError(
            f"output.path: {', '.join(names)} cannot be moved aside ({ending}) in "
            f"{_DATASETS}{self._place.repo}; --resume new needs another dataset or folder there"
        )

    def _full(self, name: str) -> str:
        return f"{self._place.folder}/{name}".lstrip("/")

    def _commit(self, operations: list[Any], message: str) -> None:
        place = self._place
        _api().create_commit(
            place.repo,
            operations,
            commit_message=message,
            repo_type="dataset",
            revision=place.revision,
        )


def _api() -> Any:
    import huggingface_hub

    return huggingface_hub.HfApi()
