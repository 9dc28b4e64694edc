"""From the paths of a job to the files to read."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest

from tightrun.io.input_types import InputError
from tightrun.io.sources import find_sources


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(*paths: Path | str, file_format: str = "auto", output: Path | None = None) -> list[str]:
    return [source.name for source in find_sources([*map(str, paths)], file_format, output)]


def test_a_file_is_named_without_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl")
    assert found(tmp_path / "a.jsonl") == ["a.jsonl"]


def test_a_folder_is_read_with_all_below_it_sorted_bytewise(tmp_path: Path) -> None:
    touch(tmp_path, "b.jsonl", "B.parquet", "sub/a.jsonl.gz", "sub-x/a.jsonl.zst", "ä.jsonl")
    names = ["B.parquet", "b.jsonl", "sub-x/a.jsonl.zst", "sub/a.jsonl.gz", "ä.jsonl"]
    assert found(tmp_path) == names


def test_a_folder_gives_only_what_can_be_read_and_is_not_hidden(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl", "README.md", ".b.jsonl", "_c.jsonl", ".git/d.jsonl", "_x/e.jsonl")
    assert found(tmp_path) == ["a.jsonl"]


def test_the_output_of_the_job_is_not_its_input(tmp_path: Path) -> None:
    touch(tmp_path, "a.parquet", "out/data/train-00000.parquet", "out/_tightrun/report/r.parquet")
    assert found(tmp_path, output=tmp_path / "out") == ["a.parquet"]
    assert found(f"{tmp_path}/**/*.parquet", output=tmp_path / "out") == ["a.parquet"]


def test_the_bookkeeping_of_another_output_is_never_input(tmp_path: Path) -> None:
    touch(tmp_path, "out/data/train-00000.parquet", "out/_tightrun/report/r.parquet")
    assert found(f"{tmp_path}/**/*.parquet") == ["out/data/train-00000.parquet"]


def test_a_format_narrows_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl", "a.parquet")
    assert found(tmp_path, file_format="parquet") == ["a.parquet"]
    assert found(tmp_path, file_format="openai-batch") == ["a.jsonl"]


def test_a_glob_takes_what_matches_and_can_be_read(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jsonl", "x/b.jsonl", "x/notes.md", "y/a.jsonl")
    assert found(f"{tmp_path}/x/*") == ["a.jsonl", "b.jsonl"]
    assert found(f"{tmp_path}/*/a.jsonl") == ["x/a.jsonl", "y/a.jsonl"]
    assert found(f"{tmp_path}/**/*.jsonl") == ["x/a.jsonl", "x/b.jsonl", "y/a.jsonl"]


def test_a_glob_of_folders_means_what_is_in_them(tmp_path: Path) -> None:
    touch(tmp_path, "part=1/a.parquet", "part=2/a.parquet")
    assert found(f"{tmp_path}/part=*") == ["part=1/a.parquet", "part=2/a.parquet"]


def test_a_list_may_mix_all_of_them_and_each_file_counts_once(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jsonl", "x/b.jsonl", "y/a.jsonl")
    names = ["x/a.jsonl", "x/b.jsonl", "y/a.jsonl"]
    assert found(tmp_path / "y/a.jsonl", f"{tmp_path}/x/*.jsonl", tmp_path / "x") == names


def test_files_of_one_name_in_different_folders_keep_apart(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jsonl", "y/a.jsonl")
    assert found(tmp_path / "x/a.jsonl", tmp_path / "y/a.jsonl") == ["x/a.jsonl", "y/a.jsonl"]


def test_a_name_that_looks_like_a_glob_is_a_name_if_it_exists(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].jsonl", "a1.jsonl")
    assert found(tmp_path / "a[1].jsonl") == ["a[1].jsonl"]


def test_an_escaped_folder_is_not_part_of_the_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "run[1]/a.jsonl", "run[1]/b.jsonl")
    assert found(glob.escape(f"{tmp_path}/run[1]") + "/*.jsonl") == ["a.jsonl", "b.jsonl"]


def test_a_link_that_leads_back_up_ends(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl")
    (tmp_path / "again").symlink_to(tmp_path)
    assert found(tmp_path) == ["a.jsonl"]


def test_a_link_keeps_its_own_name(tmp_path: Path) -> None:
    touch(tmp_path, "stored/0af3.jsonl")
    (tmp_path / "named.jsonl").symlink_to(tmp_path / "stored/0af3.jsonl")
    assert found(tmp_path / "named.jsonl") == ["named.jsonl"]


def test_standard_input_stands_alone() -> None:
    assert [(source.name, source.kind) for source in find_sources(["-"], "auto", None)] == [
        ("-", "stdin")
    ]


def test_a_file_of_any_name_can_be_read_once_its_format_is_given(tmp_path: Path) -> None:
    touch(tmp_path, "a.json", "b.json")
    assert found(tmp_path / "a.json", file_format="jsonl") == ["a.json"]
    assert found(f"{tmp_path}/*.json", file_format="jsonl") == ["a.json", "b.json"]
    with pytest.raises(InputError, match=r"its name does not tell the format.*input\.format"):
        found(tmp_path / "a.json")


def test_a_path_that_is_not_there_tells_what_is(tmp_path: Path) -> None:
    touch(tmp_path, "train.jsonl")
    with pytest.raises(InputError, match=r"trian.jsonl does not exist; .* holds train.jsonl"):
        found(tmp_path / "trian.jsonl")


def test_nothing_to_read_tells_the_known_endings(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv")
    for path in (tmp_path, f"{tmp_path}/*.csv"):
        with pytest.raises(InputError, match=r"no input files in .*\.parquet, \.jsonl"):
            found(path)
