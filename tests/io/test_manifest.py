"""manifest.json: what a run was, readable by a later version and by nobody else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.io.finished_rows import bad_row, good_row, made_job, made_scan, write_all
from tightrun.io.manifest import RunInfo, package_versions, read_manifest, this_host
from tightrun.io.outputs import OutputWriter


def test_a_complete_run_says_what_it_was_and_how_it_ended(tmp_path: Path) -> None:
    info = RunInfo(number=2, plan={"batch_size": 64})
    writer = write_all(made_job(tmp_path), [good_row(0), bad_row(1)], run_info=info)
    manifest = read_manifest(tmp_path / "_tightrun" / "manifest.json")
    assert manifest is not None
    assert manifest.fingerprint == writer.fingerprint
    assert (manifest.state, manifest.run, manifest.plan) == ("complete", 2, {"batch_size": 64})
    assert (manifest.rows, manifest.rows_done, manifest.rows_failed) == (2, 2, 1)
    assert manifest.errors == {"bad_row": 1}
    assert manifest.job["sampling"]["max_tokens"] == 256
    assert manifest.started <= (manifest.ended or "")


def test_a_run_that_goes_on_says_so_and_takes_the_plan_later(tmp_path: Path) -> None:
    writer = OutputWriter(made_job(tmp_path), made_scan(3), run_info=RunInfo(), n=1)
    writer.set_plan({"batches": 2})
    manifest = read_manifest(tmp_path / "_tightrun" / "manifest.json")
    writer.close(final=False)
    assert manifest is not None
    assert (manifest.state, manifest.plan) == ("running", {"batches": 2})


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    write_all(made_job(tmp_path), [good_row(0)])
    for name in ("manifest.json", "events.jsonl"):
        assert (tmp_path / "_tightrun" / name).stat().st_mode & 0o777 == 0o600


def test_what_a_later_version_adds_is_no_obstacle(tmp_path: Path) -> None:
    write_all(made_job(tmp_path), [good_row(0)])
    path = tmp_path / "_tightrun" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "new": 1}))
    manifest = read_manifest(path)
    assert manifest is not None
    assert manifest.rows == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": 1}'])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match="not a manifest that this version can read"):
        read_manifest(tmp_path / "manifest.json")


def test_there_may_be_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path / "manifest.json") is None


def test_versions_are_those_of_the_installed_packages() -> None:
    versions = package_versions()
    assert versions["python"] == sys.version.split()[0]
    assert versions["pyarrow"] == __import__("pyarrow").__version__


def test_the_host_is_this_one() -> None:
    assert this_host()["processors"] >= 1
