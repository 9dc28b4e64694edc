"""The door of the input side: what is scanned, and the chunks that are read."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.io.input_jobs import (
    chunks,
    items,
    job_over,
    kept,
    prompts,
    scan,
    write_lines,
    write_parquet,
)
from tightrun.core import Request
from tightrun.io.inputs import InputError, read_chunks
from tightrun.io.row_ids import hash_id


def rows(count: int, name: str = "r") -> list[dict[str, Any]]:
    return [{"id": f"{name}{i}", "prompt": f"prompt {i}"} for i in range(count)]


def test_rows_come_in_the_order_of_their_files(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_lines(data / "b.jsonl", rows(2, "b"))
    write_parquet(data / "a.parquet", pa.Table.from_pylist(rows(2, "a")))
    with gzip.open(data / "c.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(2, "c"))
    found = items(job_over(data))
    assert [item.id for item in found] == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert [item.row_index for item in found] == list(range(6))
    assert all(isinstance(item, Request) for item in found)


def test_standard_input_is_read_like_a_file(tmp_path: Path) -> None:
    job = job_over("-")
    scanned = scan(job, tmp_path, stdin=b'{"prompt": "a"}\n\n{"prompt": "b"}\n')
    found = [item for chunk in read_chunks(scanned, job) for item in chunk.items]
    assert [(item.id, item.prompt) for item in found if isinstance(item, Request)] == [
        ("-#0", "a"),
        ("-#1", "b"),
    ]


def test_ids_without_a_column_are_made_of_file_and_row(tmp_path: Path) -> None:
    write_lines(tmp_path / "in/x/a.jsonl", [{"prompt": "p"}, "", {"prompt": "q"}])
    write_parquet(tmp_path / "in/y/a.parquet", {"prompt": ["r"]})
    ids = [item.id for item in items(job_over(tmp_path / "in"))]
    assert ids == ["x/a.jsonl#0", "x/a.jsonl#1", "y/a.parquet#0"]


@pytest.mark.parametrize("name", ["custom_id", "id", "uid"])
def test_ids_are_found_under_the_usual_names_and_become_text(tmp_path: Path, name: str) -> None:
    write_lines(tmp_path / "in/a.jsonl", [{name: 7, "prompt": "p"}, {name: "x", "prompt": "p"}])
    write_parquet(tmp_path / "in/b.parquet", {name: [8, 9], "prompt": ["p", "q"]})
    assert [item.id for item in items(job_over(tmp_path / "in"))] == ["7", "x", "8", "9"]


def test_a_row_without_an_id_gets_one_unless_the_job_names_the_column(tmp_path: Path) -> None:
    lines = [{"id": "x", "prompt": "p"}, {"prompt": "q"}, {"id": "", "prompt": "r"}]
    path = write_lines(tmp_path / "a.jsonl", lines)
    assert [item.id for item in items(job_over(path))] == ["x", "a.jsonl#1", "a.jsonl#2"]
    assert prompts(job_over(path, id="id")) == ["p", "bad_row", "bad_row"]


def test_every_row_is_hashed_and_measured_as_it_is_read(tmp_path: Path) -> None:
    lines = [{"id": 1, "prompt": "äö"}, "not json", {"prompt": "xyz"}, {"id": [], "prompt": "p"}]
    write_lines(tmp_path / "in/a.jsonl", lines)
    write_parquet(tmp_path / "in/b.parquet", {"prompt": ["äöü", None]})
    job = job_over(tmp_path / "in")
    scanned = scan(job)
    assert scanned.id_hashes.dtype == np.uint64
    assert scanned.lengths.dtype == np.uint32
    assert scanned.id_hashes.tolist() == [hash_id(item.id) for item in items(job)]
    assert scanned.lengths.tolist() == [4, 9, 3, 1, 6, 0]


@pytest.mark.parametrize(
    "ids", [["a", "ä", "c"], ["a", "", "c"], ["a", None, "c"], [1, 2, 3], [b"a", b"\xff", b"c"]]
)
def test_ids_in_columns_are_hashed_as_they_are_read(tmp_path: Path, ids: list[Any]) -> None:
    column = pa.array(ids)
    if pa.types.is_binary(column.type):
        column = pa.Array.from_buffers(pa.string(), 3, column.buffers())  # text that is not UTF-8
    path = write_parquet(tmp_path / "a.parquet", {"id": column, "prompt": ["p", "q", "r"]})
    job = job_over(path)
    assert scan(job).id_hashes.tolist() == [hash_id(item.id) for item in items(job)]


def test_lengths_of_chats_count_their_text(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "äb"}, {"role": "assistant", "content": "c"}]
    write_lines(tmp_path / "in/a.jsonl", [{"messages": chat}])
    write_parquet(tmp_path / "in/b.parquet", {"messages": [chat[:1], chat, None]})
    length = len("user") + 3
    expected = [length + len("assistant") + 1, length, length + len("assistant") + 1, 0]
    assert scan(job_over(tmp_path / "in")).lengths.tolist() == expected


def test_the_fingerprint_is_that_of_the_ids_and_their_order(tmp_path: Path) -> None:
    a, b = {"id": "a", "prompt": "p"}, {"id": "b", "prompt": "q"}
    first = scan(job_over(write_lines(tmp_path / "1.jsonl", [a, b]))).fingerprint
    same = scan(job_over(write_lines(tmp_path / "2.jsonl", ["", a, "", b]))).fingerprint
    other_order = scan(job_over(write_lines(tmp_path / "3.jsonl", [b, a]))).fingerprint
    assert first == same != other_order


def test_a_chunk_crosses_neither_a_file_nor_a_shard(tmp_path: Path) -> None:
    write_lines(tmp_path / "in/a.jsonl", rows(25, "a"))
    write_parquet(tmp_path / "in/b.parquet", pa.Table.from_pylist(rows(25, "b")))
    cut = chunks(job_over(tmp_path / "in", output={"shard_rows": 10}))
    assert [(chunk.start, chunk.rows) for chunk in cut] == [
        *((0, 10), (10, 10), (20, 5)),
        *((25, 5), (30, 10), (40, 10)),
    ]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_chunk_is_bounded_in_rows_and_bytes_and_a_huge_row_is_its_own(
    tmp_path: Path, kind: str
) -> None:
    texts = ["x"] * 1500 + ["y" * 3_000_000] + ["z" * 300_000] * 5
    if kind == "jsonl":
        path = write_lines(tmp_path / "a.jsonl", [{"prompt": text} for text in texts])
    else:
        path = write_parquet(tmp_path / "a.parquet", {"prompt": texts}, use_dictionary=False)
    cut = chunks(job_over(path, output={"shard_rows": 100_000}))
    assert sum(chunk.rows for chunk in cut) == len(texts)
    assert max(chunk.rows for chunk in cut) <= 1000
    assert [chunk.rows for chunk in cut if chunk.start <= 1500 < chunk.start + chunk.rows] == [1]
    assert all(chunk.columns.nbytes < 1_200_000 for chunk in cut if chunk.rows > 1)


@pytest.mark.parametrize("start", [0, 1, 1023, 1024, 1025, 2999, 3000, 3001, 4400, 5999, 6000])
@pytest.mark.parametrize("limit", [None, 3500])
def test_reading_from_any_row_gives_the_rest(tmp_path: Path, start: int, limit: int | None) -> None:
    lines = [line for row in rows(3000, "a") for line in (row, "")]
    write_lines(tmp_path / "in/a.jsonl", lines)
    table = pa.Table.from_pylist(rows(3000, "b"))
    write_parquet(tmp_path / "in/b.parquet", table, row_group_size=1000)
    job = job_over(tmp_path / "in")
    scanned = scan(job)
    every = [item for chunk in read_chunks(scanned, job) for item in chunk.items]
    part = read_chunks(scanned, job, start_row=start, limit=limit)
    assert [item for chunk in part for item in chunk.items] == every[start:limit]


def test_a_row_is_placed_by_line_or_by_row(tmp_path: Path) -> None:
    write_lines(tmp_path / "in/a.jsonl", ["", {"prompt": "p"}, "", {"prompt": "q"}])
    write_parquet(tmp_path / "in/b.parquet", {"prompt": ["r", "s"]})
    cut = chunks(job_over(tmp_path / "in"))
    places = [chunk.place(i) for chunk in cut for i in range(chunk.rows)]
    assert places == ["a.jsonl:2", "a.jsonl:4", "b.parquet#0", "b.parquet#1"]


def test_columns_are_kept_in_one_schema_over_all_files(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "in/a.jsonl",
        [{"prompt": "p", "n": 1, "meta": {"a": 1}}, {"prompt": "q", "extra": [1.5]}],
    )
    write_parquet(tmp_path / "in/b.parquet", {"prompt": ["r"], "n": [0.5], "meta": [{"b": "x"}]})
    job = job_over(tmp_path / "in")
    assert {chunk.columns.schema for chunk in chunks(job)} == {scan(job).schema}
    assert kept(job) == [
        {"prompt": "p", "n": 1.0, "meta": {"a": 1, "b": None}, "extra": None},
        {"prompt": "q", "n": None, "meta": None, "extra": [1.5]},
        {"prompt": "r", "n": 0.5, "meta": {"a": None, "b": "x"}, "extra": None},
    ]


def test_a_column_of_two_types_becomes_json_text_and_says_so(tmp_path: Path) -> None:
    write_lines(tmp_path / "in/a.jsonl", [{"prompt": "p", "label": "x"}])
    write_parquet(tmp_path / "in/b.parquet", {"prompt": ["q"], "label": [3]})
    job = job_over(tmp_path / "in")
    assert [row["label"] for row in kept(job)] == ['"x"', "3"]
    assert any("'label'" in warning for warning in scan(job).warnings)


def test_integers_too_large_for_arrow_are_kept_as_json_text(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "p", "n": 2**80}, {"prompt": "q", "n": 1}])
    assert [row["n"] for row in kept(job_over(path))] == [str(2**80), "1"]


@pytest.mark.parametrize(
    ("keep", "expected"), [("none", []), (["b"], ["b"]), ("all", ["prompt", "a", "b"])]
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_only_the_columns_to_keep_are_kept(
    tmp_path: Path, keep: Any, expected: list[str], kind: str
) -> None:
    row = {"prompt": "p", "a": 1, "b": 2}
    if kind == "jsonl":
        path = write_lines(tmp_path / "x.jsonl", [row])
    else:
        path = write_parquet(tmp_path / "x.parquet", pa.Table.from_pylist([row]))
    job = job_over(path, output={"keep_columns": keep})
    (chunk,) = chunks(job)
    assert chunk.columns.schema.names == expected
    assert chunk.columns.num_rows == 1
    assert prompts(job) == ["p"]


def test_a_column_named_text_can_be_kept(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": "p", "custom_id": "x"}])
    assert kept(job_over(path)) == [{"text": "p", "custom_id": "x"}]


def test_an_instruction_is_followed_by_its_input(tmp_path: Path) -> None:
    lines = [{"instruction": "Add.", "input": "1 2"}, {"instruction": "Go.", "input": ""}]
    assert prompts(job_over(write_lines(tmp_path / "a.jsonl", lines))) == ["Add.\n\n1 2", "Go."]


def test_a_template_is_filled_from_the_columns_of_either_format(tmp_path: Path) -> None:
    write_lines(tmp_path / "in/a.jsonl", [{"q": "1+1", "n": 2}])
    write_parquet(tmp_path / "in/b.parquet", {"q": ["2+2", None], "n": [3, 4]})
    job = job_over(tmp_path / "in", template="{{ n }}) {{ q }}=")
    assert prompts(job) == ["2) 1+1=", "3) 2+2=", "missing_column"]


def test_a_row_may_bring_its_own_sampling(tmp_path: Path) -> None:
    write_lines(tmp_path / "in/a.jsonl", [{"prompt": "p", "sampling_params": {"seed": 3}}])
    params = [{"temperature": 0.5, "seed": None}, None]
    write_parquet(tmp_path / "in/b.parquet", {"prompt": ["q", "r"], "sampling_params": params})
    found = [item for item in items(job_over(tmp_path / "in")) if isinstance(item, Request)]
    drawn = [(item.sampling.seed, item.sampling.temperature) for item in found]
    assert drawn == [(3, 0.0), (0, 0.5), (0, 0.0)]


def test_a_batch_file_is_recognised_and_keeps_no_column(tmp_path: Path) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    path = write_lines(tmp_path / "a.jsonl", [line, {"custom_id": "x", **line}, "{"])
    job = job_over(path)
    scanned = scan(job)
    assert scanned.format == "openai-batch"
    assert scanned.schema.names == []
    assert prompts(job) == ["bad_row", tuple(body["messages"]), "bad_row"]
    assert scanned.warnings == (
        "the lines name the model gpt-4o; all rows are answered by owner/model",
    )


def test_a_batch_file_is_plain_jsonl_if_the_job_says_so(tmp_path: Path) -> None:
    line = {"custom_id": "x", "method": "POST", "url": "u", "body": {}, "prompt": "p"}
    path = write_lines(tmp_path / "a.jsonl", [line])
    assert prompts(job_over(path, format="jsonl")) == ["p"]
    assert prompts(job_over(path, prompt="method")) == ["POST"]


def test_a_system_prompt_does_not_go_with_batch_lines(tmp_path: Path) -> None:
    line = {"custom_id": "x", "method": "POST", "url": "u", "body": {}}
    path = write_lines(tmp_path / "a.jsonl", [line])
    with pytest.raises(InputError, match=r"remove input\.system"):
        scan(job_over(path, system="Be terse."))


def test_the_scan_tells_how_far_it_is(tmp_path: Path) -> None:
    from tightrun.io.inputs import scan_inputs

    told: list[int] = []
    path = write_lines(tmp_path / "a.jsonl", rows(3000))
    scan_inputs(job_over(path), spool=tmp_path, progress=told.append)
    assert told == sorted(told)
    assert told[-1] >= 2048


def test_files_that_are_scanned_and_skipped_are_not_opened(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "in/a.jsonl", rows(5, "a"))
    write_lines(tmp_path / "in/b.jsonl", rows(5, "b"))
    job = job_over(tmp_path / "in")
    scanned = scan(job)
    first.unlink()
    assert sum(chunk.rows for chunk in read_chunks(scanned, job, start_row=5)) == 5


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_file_that_changed_since_the_scan_stops_the_job(tmp_path: Path, name: str) -> None:
    def write(count: int) -> Path:
        if name.endswith("jsonl"):
            return write_lines(tmp_path / name, rows(count))
        return write_parquet(tmp_path / name, pa.Table.from_pylist(rows(count)))

    job = job_over(write(5))
    scanned = scan(job)
    write(6)
    with pytest.raises(InputError, match=rf"{name} has changed since it was scanned"):
        list(read_chunks(scanned, job))


def test_reading_parquet_and_lines_imports_neither_torch_nor_datasets(tmp_path: Path) -> None:
    write_lines(tmp_path / "in/a.jsonl", rows(2, "a"))
    write_parquet(tmp_path / "in/b.parquet", pa.Table.from_pylist(rows(2, "b")))
    program = (
        "import sys\n"
        "from tests.io.input_jobs import items, job_over\n"
        "from tightrun.io.validation import validate_inputs\n"
        "from pathlib import Path\n"
        "job = job_over(Path(sys.argv[1]))\n"
        "assert len(items(job)) == validate_inputs(job).rows == 4\n"
        "heavy = {'torch', 'transformers', 'datasets'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "in")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
