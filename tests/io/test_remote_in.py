"""Input by URL: found like local files, read in ranges, tried again, told when it has changed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.io.input_jobs import items, job_over, prompts, scan
from tightrun.io import patience
from tightrun.io.inputs import InputError, read_chunks, scan_inputs
from tightrun.io.patience import RemoteError


class Flaky(MemoryFileSystem):
    """A store in memory that counts what is read, and fails as often as it is told to."""

    protocol = "flaky"
    failures = 0
    error: Exception = ConnectionResetError("reset by peer")
    ranges: list[tuple[str, int, int]] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("flaky://", "memory://")))

    def unstrip_protocol(self, name: str) -> str:
        return "flaky:/" + self._strip_protocol(name)

    def cat_file(self, path: str, start: Any = None, end: Any = None, **_options: Any) -> bytes:
        if Flaky.failures:
            Flaky.failures -= 1
            raise Flaky.error
        Flaky.ranges.append((path.rpartition("/")[2], start, end))
        return bytes(super().cat_file(path, start=start, end=end))


fsspec.register_implementation("flaky", Flaky, clobber=True)


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    monkeypatch.setattr(patience, "WAITS_S", (0.0, 0.0))
    Flaky.failures, Flaky.ranges = 0, []
    MemoryFileSystem.store.clear()
    yield Flaky()
    MemoryFileSystem.store.clear()


def put_lines(store: Flaky, path: str, prompts: list[str], **more: Any) -> None:
    lines = "".join(json.dumps({"prompt": prompt, **more}) + "\n" for prompt in prompts).encode()
    store.pipe_file(path, gzip.compress(lines) if path.endswith(".gz") else lines)


def put_parquet(store: Flaky, path: str, columns: dict[str, Any], **options: Any) -> int:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, **options)
    store.pipe_file(path, sink.getvalue().to_pybytes())
    return int(store.size(path))


def test_a_folder_a_glob_and_a_file_are_read_like_local_ones(store: Flaky, tmp_path: Path) -> None:
    put_lines(store, "/b/in/b.jsonl", ["1"])
    put_lines(store, "/b/in/a/c.jsonl.gz", ["2"])
    put_lines(store, "/b/in/_hidden.jsonl", ["3"])
    put_parquet(store, "/b/in/d.parquet", {"prompt": ["4"]})
    output = {"path": str(tmp_path)}
    assert prompts(job_over("flaky://b/in", output=output)) == ["2", "1", "4"]
    assert prompts(job_over("flaky://b/in/*.jsonl", output=output)) == ["3", "1"]
    assert prompts(job_over("flaky://b/in/b.jsonl", output=output)) == ["1"]
    ids = [item.id for item in items(job_over("flaky://b/in", output=output))]
    assert ids == ["a/c.jsonl.gz#0", "b.jsonl#0", "d.parquet#0"]


def test_remote_files_stand_beside_local_ones(store: Flaky, tmp_path: Path) -> None:
    put_lines(store, "/b/a.jsonl", ["there"])
    (tmp_path / "a.jsonl").write_text('{"prompt": "here"}\n')
    job = job_over([str(tmp_path / "a.jsonl"), "flaky://b/a.jsonl"], output={"path": str(tmp_path)})
    assert [item.id for item in items(job)] == ["a.jsonl#0", "flaky://b/a.jsonl#0"]


def test_the_scan_of_a_parquet_file_reads_its_footer_only(store: Flaky, tmp_path: Path) -> None:
    texts = [f"{i}" * 2000 for i in range(2000)]
    size = put_parquet(
        store, "/b/a.parquet", {"prompt": texts}, row_group_size=500, compression="none"
    )
    job = job_over("flaky://b/a.parquet", output={"path": str(tmp_path)})
    scanned = scan(job)
    assert sum(end - start for _, start, end in Flaky.ranges) < size / 10
    assert int(scanned.lengths.sum()) == pytest.approx(sum(map(len, texts)), rel=0.1)
    found = [item.prompt for chunk in read_chunks(scanned, job) for item in chunk.items]  # type: ignore[union-attr]
    assert found == texts


def test_lines_are_fetched_once(store: Flaky, tmp_path: Path) -> None:
    put_lines(store, "/b/a.jsonl", ["x"] * 50)
    job = job_over("flaky://b/a.jsonl", output={"path": str(tmp_path)})
    for _ in range(2):
        assert len(list(read_chunks(scan(job, tmp_path), job))) == 1
    assert len(Flaky.ranges) == 1


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz"])
def test_a_failure_that_passes_is_not_seen(store: Flaky, tmp_path: Path, name: str) -> None:
    put_parquet(store, "/b/a.parquet", {"prompt": ["x"]})
    put_lines(store, "/b/a.jsonl", ["x"])
    put_lines(store, "/b/a.jsonl.gz", ["x"])
    Flaky.failures = 2
    assert prompts(job_over(f"flaky://b/{name}", output={"path": str(tmp_path)})) == ["x"]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz"])
def test_a_failure_that_stays_is_one_line(store: Flaky, tmp_path: Path, name: str) -> None:
    put_parquet(store, "/b/a.parquet", {"prompt": ["x"]})
    put_lines(store, "/b/a.jsonl", ["x"])
    put_lines(store, "/b/a.jsonl.gz", ["x"])
    Flaky.failures = 10**6
    with pytest.raises(RemoteError, match=r"reset by peer.*tried 3 times.*goes on from there"):
        scan(job_over(f"flaky://b/{name}", output={"path": str(tmp_path)}))


def test_what_is_not_there_is_the_persons_to_mend(store: Flaky, tmp_path: Path) -> None:
    put_lines(store, "/b/a.txt", ["x"])
    for url, why in {
        "flaky://b/none.jsonl": "does not exist",
        "flaky://b/*.jsonl": "no input files in",
        "flaky://b/a.txt": "its name does not tell the format",
        "nobody://b/a.jsonl": "Protocol not known",
    }.items():
        with pytest.raises(InputError, match=why):
            scan(job_over(url, output={"path": str(tmp_path)}))


def test_a_missing_package_is_told_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(*_args: Any, **_options: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacks)
    with pytest.raises(InputError, match=r"Install s3fs.*pip install 'tightrun\[s3\]'"):
        scan(job_over("s3://bucket/a.jsonl", output={"path": str(tmp_path)}))


def test_a_file_that_changed_since_the_scan_is_refused(store: Flaky, tmp_path: Path) -> None:
    put_parquet(store, "/b/a.parquet", {"prompt": ["x"]})
    job = job_over("flaky://b/a.parquet", output={"path": str(tmp_path)})
    scanned = scan(job)
    put_parquet(store, "/b/a.parquet", {"prompt": ["y"]})
    with pytest.raises(InputError, match=r"a\.parquet has changed since it was scanned"):
        list(read_chunks(scanned, job))


def test_the_version_of_each_file_is_in_the_scan(store: Flaky, tmp_path: Path) -> None:
    put_lines(store, "/b/a.jsonl", ["x"])
    job = job_over("flaky://b/a.jsonl", output={"path": str(tmp_path)})
    first = scan(job).versions
    assert first.keys() == {"flaky://b/a.jsonl"}
    assert scan(job).versions == first
    put_lines(store, "/b/a.jsonl", ["y"])
    assert scan_inputs(job, spool=tmp_path, versions=first).versions != first
