"""Which files of a store are of an output, and where they belong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tightrun.io.output_place import OutputPlace
from tightrun.io.store_files import StoreFiles

FOLDER = StoreFiles(OutputPlace.of("s3://bucket/out", Path("/copies")))
SINGLE = StoreFiles(OutputPlace.of("s3://bucket/deep/results.jsonl", Path("/copies")))


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "data/train-00012.parquet",
        "data/train-00012.jsonl",
        "_tightrun/manifest.json",
        "_tightrun/events.jsonl",
        "_tightrun/trace.json.gz",
        "_tightrun/sealed/train-00012.bin",
        "_tightrun/journal/rows-00012.bin",
        "_tightrun/journal/tokens-0001.bin",
        "_tightrun/report/runs/run-0001.parquet",
        "_tightrun/report/steps/run-0001-00000.parquet",
    ],
)
def test_files_of_a_folder_belong_below_it(name: str) -> None:
    path = FOLDER.path(name)
    assert path == FOLDER.place.target / name
    assert FOLDER.name(path) == name


@pytest.mark.parametrize(
    "name",
    [
        "results.jsonl",
        "results_errors.jsonl",
        "results.tightrun/data/train-00000.jsonl",
        "results.tightrun/data/errors-00000.jsonl",
        "results.tightrun/manifest.json",
    ],
)
def test_files_of_a_single_file_lie_beside_it(name: str) -> None:
    assert SINGLE.path(name) == SINGLE.place.target.parent / name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../README.md",
        "data/../../train-00000.parquet",
        "data/train-00000.parquet/../../../x",
        "data/train-00000.exe",
        "data/.train-00000.parquet.tmp",
        "data/deep/train-00000.parquet",
        "_tightrun/journal/../manifest.json/../../x",
        "_tightrun/journal/rows-../../x.bin",
        "_tightrun/live/run-0001.json",
        "_tightrun/input/stdin.jsonl",
        "_tightrun/owner.json",
        "manifest.json",
        "sealed/train-00000.bin",
    ],
)
def test_no_other_name_of_a_store_becomes_a_file_here(name: str) -> None:
    assert FOLDER.path(name) is None
    assert SINGLE.path(f"results.tightrun/../{name}") is None


def test_each_url_has_a_copy_of_its_own() -> None:
    urls = ("s3://a/b", "s3://a-b", "gs://a/b", "s3://a/b.jsonl", "s3://a/B", "s3://a/../b")
    places = [OutputPlace.of(url, Path("/copies")) for url in urls]
    assert len({place.base for place in places}) == len(urls)
    assert all(place.base.is_relative_to("/copies") for place in places)
    assert all(".." not in place.base.parts for place in places)


def test_a_slash_at_the_end_makes_no_other_output() -> None:
    a, b = (OutputPlace.of(url, Path("/copies")) for url in ("s3://a/b", "s3://a/b/"))
    assert a == b
