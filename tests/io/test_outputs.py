"""The output as a whole: one row out per row in, in input order, whatever happens on the way."""

from __future__ import annotations

import json
import random
import resource
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.io.faulty_disk import FaultyDisk, PowerCut
from tests.io.finished_rows import (
    bad_row,
    good_row,
    made_chunks,
    made_job,
    made_scan,
    write_all,
)
from tightrun.core import Completion, TokenLogprob
from tightrun.io.durable import Disk
from tightrun.io.outputs import OutputError, OutputWriter, RunInfo, WriteError

FORMATS = ["parquet", "jsonl", "openai-batch"]


def shards_in(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "data").glob("*"))


def opened(path: Path, rows: int, disk: Disk | None = None, **sections: Any) -> OutputWriter:
    """A writer that has admitted all of its rows."""
    job, scan = made_job(path, **sections), made_scan(rows)
    writer = OutputWriter(job, scan, run_info=RunInfo(), n=1, disk=disk)
    for chunk in made_chunks(scan, job.output.shard_rows):
        writer.admit(chunk)
    return writer


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.integers(1, 35),
    shard_rows=st.integers(1, 12),
    form=st.sampled_from(FORMATS),
    seed=st.integers(0, 2**32),
)
def test_rows_are_in_input_order_whatever_order_they_finish_in(
    tmp_path_factory: pytest.TempPathFactory, rows: int, shard_rows: int, form: str, seed: int
) -> None:
    out = tmp_path_factory.mktemp("run") / "out"
    finished = [bad_row(i) if i % 5 == 3 else good_row(i) for i in range(rows)]
    random.Random(seed).shuffle(finished)
    write_all(made_job(out, output={"shard_rows": shard_rows, "format": form}), finished)
    ids = []
    for path in sorted((out / "data").iterdir()):
        if form == "parquet":
            ids.append(pq.read_table(path)["custom_id"].to_pylist())
        else:
            ids.append([json.loads(line)["custom_id"] for line in path.read_text().splitlines()])
    expected = [f"id-{i}" for i in range(rows)]
    assert ids == [expected[i : i + shard_rows] for i in range(0, rows, shard_rows)]


def test_the_folder_is_what_the_contract_says(tmp_path: Path) -> None:
    write_all(made_job(tmp_path / "out"), [good_row(i) for i in range(25)])
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert found == [
        "out/README.md",
        "out/_tightrun/events.jsonl",
        "out/_tightrun/manifest.json",
        "out/_tightrun/sealed/train-00000.bin",
        "out/_tightrun/sealed/train-00001.bin",
        "out/_tightrun/sealed/train-00002.bin",
        "out/data/train-00000.parquet",
        "out/data/train-00001.parquet",
        "out/data/train-00002.parquet",
    ]


def test_kept_columns_stand_beside_their_row(tmp_path: Path) -> None:
    columns = pa.table({"text": [f"in {i}" for i in range(25)], "number": range(25)})
    rows = [good_row(i) for i in reversed(range(25))]
    write_all(made_job(tmp_path), rows, columns=columns)
    table = pyarrow.dataset.dataset(tmp_path / "data").to_table()
    assert table["text"].to_pylist() == [f"output {i}.0" for i in range(25)]
    assert table["input_text"].to_pylist() == [f"in {i}" for i in range(25)]
    assert table["number"].to_pylist() == list(range(25))


def test_a_job_that_keeps_no_columns_has_the_result_alone(tmp_path: Path) -> None:
    scan = made_scan(12, pa.schema([]))
    write_all(made_job(tmp_path), [good_row(i) for i in range(12)], scan=scan)
    table = pyarrow.dataset.dataset(tmp_path / "data").to_table()
    assert table.num_rows == 12
    assert table.schema.names[-1] == "attempt"


def test_every_shard_has_the_same_schema_though_a_column_is_all_null(tmp_path: Path) -> None:
    token = (TokenLogprob(1, "a", -0.5),)
    rows = [bad_row(i) for i in range(10)] + [good_row(i, logprobs=token) for i in range(10, 20)]
    write_all(made_job(tmp_path, sampling={"logprobs": 1}), rows)
    schemas = [pq.read_schema(tmp_path / "data" / name) for name in shards_in(tmp_path)]
    assert schemas[0].equals(schemas[1])
    assert "logprobs" in schemas[0].names


@pytest.mark.parametrize(
    ("scan", "sampling", "there"),
    [
        ({}, {}, False),
        ({}, {"logprobs": 2}, True),
        ({"columns": ("question", "sampling_params")}, {}, True),
        ({"format": "openai-batch"}, {}, True),
    ],
)
def test_the_logprobs_column_is_there_when_a_row_might_ask(
    tmp_path: Path, scan: dict[str, Any], sampling: dict[str, Any], there: bool
) -> None:
    write_all(made_job(tmp_path, sampling=sampling), [good_row(0)], scan=made_scan(1, **scan))
    schema = pq.read_schema(tmp_path / "data" / "train-00000.parquet")
    assert ("logprobs" in schema.names) == there


def test_samples_are_there_when_the_job_draws_more_than_one(tmp_path: Path) -> None:
    write_all(made_job(tmp_path), [good_row(0, n=2)], n=2)
    (row,) = pq.read_table(tmp_path / "data" / "train-00000.parquet").to_pylist()
    assert [sample["text"] for sample in row["samples"]] == ["output 0.0", "output 0.1"]


def test_the_folder_is_a_hugging_face_dataset(tmp_path: Path) -> None:
    import datasets

    write_all(made_job(tmp_path / "out"), [good_row(i) for i in range(25)])
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert loaded["train"]["row_index"][:] == list(range(25))


def test_the_folder_of_json_lines_is_a_hugging_face_dataset(tmp_path: Path) -> None:
    import datasets

    job = made_job(tmp_path / "out", output={"format": "jsonl"})
    write_all(job, [good_row(i) for i in range(25)])
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"]["row_index"][:] == list(range(25))


def test_a_sql_engine_reads_the_shards(tmp_path: Path) -> None:
    write_all(made_job(tmp_path), [bad_row(i) if i % 5 == 0 else good_row(i) for i in range(25)])
    pattern = f"{tmp_path}/data/*.parquet"
    query = f"select error.code, count(*) from '{pattern}' group by 1 order by 1"
    assert duckdb.connect().execute(query).fetchall() == [("bad_row", 5), (None, 20)]


def test_a_shard_is_on_the_disk_as_soon_as_its_rows_are_in(tmp_path: Path) -> None:
    writer = opened(tmp_path, 20)
    for i in range(10, 20):
        writer.put(good_row(i))
    writer.flush()
    assert shards_in(tmp_path) == ["train-00001.parquet"]
    writer.close(final=False)


def test_a_shard_is_read_when_one_of_four_before_it_is_written(tmp_path: Path) -> None:
    writer = OutputWriter(made_job(tmp_path), made_scan(100), run_info=RunInfo(), n=1)
    stop, read = threading.Event(), list[range]()
    reader = threading.Thread(target=lambda: read.extend(writer.to_read(stop)))
    reader.start()
    for chunk in made_chunks(made_scan(10), 10):
        writer.admit(chunk)
    for i in range(10):
        writer.put(good_row(i))
    writer.flush()
    while len(read) < 5:
        time.sleep(0.001)
    stop.set()
    reader.join()
    assert read == [range(at, at + 10) for at in range(0, 50, 10)]
    writer.close(final=False)


def test_rows_and_errors_are_counted(tmp_path: Path) -> None:
    rows = [good_row(0), bad_row(1, "oom"), bad_row(2), bad_row(3)]
    writer = write_all(made_job(tmp_path), rows)
    assert (writer.rows_done, writer.rows_failed) == (4, 3)
    assert writer.error_counts == Counter(bad_row=2, oom=1)


def test_a_run_of_the_first_rows_ends_after_them(tmp_path: Path) -> None:
    job, rows = made_job(tmp_path), [good_row(i) for i in range(13)]
    writer = OutputWriter(job, made_scan(100), run_info=RunInfo(), n=1, rows=13)
    for chunk in made_chunks(made_scan(13), job.output.shard_rows):
        writer.admit(chunk)
    for row in rows:
        writer.put(row)
    writer.close(final=True)
    table = pyarrow.dataset.dataset(tmp_path / "data").to_table()
    assert table["row_index"].to_pylist() == list(range(13))


def test_rows_may_be_put_from_many_threads(tmp_path: Path) -> None:
    writer = opened(tmp_path, 400, output={"shard_rows": 100})

    def put(first: int) -> None:
        for i in range(first, 400, 4):
            writer.put(good_row(i))

    threads = [threading.Thread(target=put, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close(final=True)
    table = pyarrow.dataset.dataset(tmp_path / "data").to_table()
    assert table["row_index"].to_pylist() == list(range(400))


def test_a_disk_that_hangs_does_not_hold_up_who_finishes_rows(tmp_path: Path) -> None:
    go = threading.Event()

    class HangingDisk(Disk):
        def sync(self, fd: int) -> None:
            if threading.current_thread().name == "tightrun-writer":
                assert go.wait(30)
            super().sync(fd)

    writer = opened(tmp_path, 4_000, HangingDisk(), output={"shard_rows": 1_000})
    for i in range(4_000):
        writer.put(good_row(i))
    assert not go.is_set()
    go.set()
    writer.close(final=True)
    assert writer.rows_done == 4_000


def test_a_run_that_stops_keeps_its_finished_rows_in_the_journal(tmp_path: Path) -> None:
    writer = opened(tmp_path, 20)
    for i in range(13):
        writer.put(good_row(i))
    writer.close(final=False)
    assert shards_in(tmp_path) == ["train-00000.parquet"]
    journal = tmp_path / "_tightrun" / "journal"
    assert sorted(p.name for p in journal.iterdir()) == ["columns-00001.arrow", "rows-00001.bin"]
    assert journal.stat().st_mode & 0o777 == 0o700
    assert json.loads((tmp_path / "_tightrun/manifest.json").read_text())["state"] == "stopped"


def test_closing_before_all_rows_are_in_is_not_final(tmp_path: Path) -> None:
    writer = opened(tmp_path, 20)
    with pytest.raises(AssertionError, match="20 rows are missing"):
        writer.close(final=True)


def test_a_single_file_has_all_lines_in_order_and_failed_ones_also_apart(tmp_path: Path) -> None:
    job = made_job(tmp_path / "results.jsonl", output={"format": "openai-batch"})
    rows = [bad_row(i) if i in (4, 17) else good_row(i) for i in range(25)]
    write_all(job, list(reversed(rows)))
    lines = [json.loads(s) for s in (tmp_path / "results.jsonl").read_text().splitlines()]
    errors = [json.loads(s) for s in (tmp_path / "results_errors.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == [f"id-{i}" for i in range(25)]
    assert errors == [lines[4], lines[17]]
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*"))
    assert left == [
        "results.jsonl",
        "results.tightrun",
        "results.tightrun/events.jsonl",
        "results.tightrun/manifest.json",
        "results.tightrun/sealed",
        "results.tightrun/sealed/train-00000.bin",
        "results.tightrun/sealed/train-00001.bin",
        "results.tightrun/sealed/train-00002.bin",
        "results_errors.jsonl",
    ]


def test_a_single_file_without_failed_rows_has_no_file_of_them(tmp_path: Path) -> None:
    job = made_job(tmp_path / "results.jsonl", output={"format": "jsonl"})
    write_all(job, [good_row(i) for i in range(3)])
    assert not (tmp_path / "results_errors.jsonl").exists()


def test_a_full_disk_is_told_to_whoever_puts_the_next_row(tmp_path: Path) -> None:
    disk = FaultyDisk(only="write")
    writer = opened(tmp_path, 20, disk)
    writer.flush()
    disk.fail_at = disk.count
    writer.put(good_row(0))
    with pytest.raises(WriteError, match=r"No space left on device: .*journal") as raised:
        writer.flush()
    assert isinstance(raised.value.__cause__, OSError)
    assert not writer.window.wait_for_room(0, threading.Event())
    with pytest.raises(WriteError, match="No space left on device"):
        writer.put(good_row(1))
    with pytest.raises(WriteError, match="No space left on device"):
        writer.close(final=True)
    assert list((tmp_path / "data").iterdir()) == []


def test_an_output_that_cannot_be_opened_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written .*No space left on device"):
        opened(tmp_path, 20, FaultyDisk(0, only="make_folder"))


def run_small(out: Path, form: str, disk: Disk) -> None:
    """A run of two shards with one failed row; raises where the disk fails."""
    rows = [bad_row(i) if i == 2 else good_row(i) for i in range(6)]
    write_all(made_job(out, output={"format": form, "shard_rows": 4}), rows, disk=disk)


@pytest.mark.parametrize(
    ("name", "form", "dies"),
    [("out", "parquet", False), ("out", "parquet", True), ("out.jsonl", "openai-batch", True)],
)
def test_a_failure_at_any_operation_leaves_nothing_half_under_a_final_name(
    tmp_path: Path, name: str, form: str, dies: bool
) -> None:
    """The disk may fail once, or the process die there: what has its name is complete."""
    disk = FaultyDisk()
    run_small(tmp_path / name, form, disk)
    assert disk.count > 40
    for k in range(disk.count):
        folder = tmp_path / str(k)
        folder.mkdir()
        with pytest.raises((WriteError, OutputError, OSError, PowerCut)):
            run_small(folder / name, form, FaultyDisk(k, dies=dies))
        for path in folder.rglob("[!.]*.parquet"):
            assert path.stat().st_size == (tmp_path / path.relative_to(folder)).stat().st_size
            assert pq.read_table(path).num_rows in (4, 2)
        for path in folder.rglob("[!.]*.jsonl"):
            rows = {"train-00000": 4, "train-00001": 2, "out": 6, "out_errors": 1}
            if path.stem in rows:
                assert len(path.read_text().splitlines()) == rows[path.stem]
        assert dies or not list(folder.rglob(".*.tmp"))


def rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_memory_does_not_grow_with_rows_or_kept_columns(tmp_path: Path) -> None:
    """20,000 rows of 2 kB each pass through; what is held afterwards is the same as early on."""
    rows, text = 20_000, "x" * 2_000
    scan = made_scan(rows, pa.schema([("blob", pa.string())]))
    job = made_job(tmp_path, output={"shard_rows": 2_000})
    writer = OutputWriter(job, scan, run_info=RunInfo(), n=1)
    held = []
    for start in range(0, rows, 500):
        span = range(start, start + 500)
        table = pa.table({"blob": [f"{i}{text}" for i in span]}, scan.schema)
        (chunk,) = made_chunks(made_scan(500, scan.schema), 500, table, rows=500)
        items = tuple(good_row(i) for i in span)
        writer.admit(_moved(chunk, start, items))
        for row in items:
            writer.put(row)
        writer.flush()
        held.append(rss_bytes())
    writer.close(final=True)
    early = max(held[: len(held) // 4])
    assert max(held) - early < 10 << 20


def _moved(chunk: Any, start: int, items: tuple[Completion, ...]) -> Any:
    return type(chunk)(start, chunk.source_file, items, chunk.columns, chunk.nbytes)
