"""Datasets on the Hugging Face hub, held to the commit that was there when the job began.

Where the files of a split are Parquet or JSON lines, they are read as remote files, and nothing
is downloaded but what is needed. Any other dataset is left to `load_dataset`, which keeps a copy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from tightrun.io.input_types import InputError
from tightrun.io.job_sections import InputSpec
from tightrun.io.patience import patiently
from tightrun.io.remote import HubDataset

DATASET_URL = re.compile(
    r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>refs/[^/]+/[^/]+|[^/]+))?(?P<rest>/.*)?"
)
_COMMIT = re.compile(r"(hf://datasets/[^/@]+/[^/@]+)@[0-9a-f]{40}(?=/|$)")
_IS_COMMIT = re.compile(r"[0-9a-f]{40}")
_READ_AS_FILES = {"parquet": (".parquet",), "json": (".jsonl", ".jsonl.gz", ".jsonl.zst")}


class Revisions:
    """Which commit each dataset is read at: what an earlier run has read, else the newest.

    `before` are the versions of the input that the earlier run was made from. `found` are all
    that were asked for, by a name such as hf://datasets/owner/name@main.
    """

    def __init__(self, before: Mapping[str, str] | None = None) -> None:
        self._before = before or {}
        self.found: dict[str, str] = {}

    def commit(self, repo: str, revision: str | None) -> str:
        """The commit; raises InputError if there is no such dataset or revision."""
        if revision is not None and _IS_COMMIT.fullmatch(revision):
            return revision
        name = f"hf://datasets/{repo}@{revision or 'main'}"
        if name not in self.found:
            self.found[name] = self._before.get(name) or _newest(repo, revision)
        return self.found[name]

    def pinned(self, url: str) -> str:
        """The URL at its commit, if it is one of a dataset of the hub; any other as it is."""
        parts = DATASET_URL.fullmatch(url)
        if parts is None:
            return url
        revision = parts["revision"]
        commit = self.commit(parts["repo"], None if revision is None else unquote(revision))
        return f"hf://datasets/{parts['repo']}@{commit}{parts['rest'] or ''}"


def without_commit(url: str) -> str:
    """The URL of a file on the hub as it is at any commit."""
    return _COMMIT.sub(r"\1", url)


def dataset_files(dataset: HubDataset, spec: InputSpec) -> tuple[list[str], str] | None:
    """The URLs of the files of the split that `spec` asks for, and the name of the split.

    None where the dataset is not just files of rows, or part of a split is asked for. Raises
    InputError if it is not there, or has several splits and none is chosen.
    """
    splits, endings = _files_by_split(dataset, spec)
    if not endings or not splits or (spec.split and not spec.split.isidentifier()):
        return None
    if spec.split is None and len(splits) > 1:
        raise InputError(
            f"{dataset} has several splits ({', '.join(splits)}); choose one with input.split"
        )
    split = spec.split or next(iter(splits))
    if split not in splits:
        raise InputError(f"input.split: {dataset} has no split {split!r}, only {', '.join(splits)}")
    files = splits[split]
    return (files, split) if all(file.endswith(endings) for file in files) else None


def _files_by_split(
    dataset: HubDataset, spec: InputSpec
) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """The URLs of the files, and how their names end; no endings where they are not just rows."""
    import datasets

    def load() -> Any:
        return datasets.load_dataset_builder(dataset.repo, spec.name, revision=dataset.commit)

    try:
        builder = patiently(load, f"looking at the dataset {dataset}")
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"input.dataset: {dataset} cannot be read: {error}") from error
    config = builder.config
    # A field within each file, or columns left out, are for load_dataset to know of.
    special = getattr(config, "field", None) or getattr(config, "columns", None)
    kind = type(builder).__module__.rpartition(".")[2]
    files = {str(split): list(paths) for split, paths in (config.data_files or {}).items()}
    return files, () if special else _READ_AS_FILES.get(kind, ())


def _newest(repo: str, revision: str | None) -> str:
    import huggingface_hub
    from huggingface_hub.errors import (
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def ask() -> str:
        try:
            return str(huggingface_hub.HfApi().dataset_info(repo, revision=revision).sha)
        except RepositoryNotFoundError as error:
            raise InputError(
                f"input: there is no dataset {repo} on the hub, or it is private; if so, log in "
                "with `hf auth login`"
            ) from error
        except RevisionNotFoundError as error:
            raise InputError(f"input: the dataset {repo} has no revision {revision}") from error
        except HFValidationError as error:
            raise InputError(f"input: {error}") from error
        except OfflineModeIsEnabled as error:
            raise InputError(f"input: the dataset {repo} is on the hub: {error}") from error

    return patiently(ask, f"asking the hub for {repo}")
