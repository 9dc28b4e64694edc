"""Bad input: a clear error before anything is loaded, or an error row in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.io.input_jobs import (
    chunks,
    error_of,
    items,
    job_over,
    kept,
    prompts,
    scan,
    write_lines,
    write_parquet,
)
from tightrun.io.inputs import InputError
from tightrun.io.row_ids import hash_id, refuse_duplicates


def refusal(job: Any) -> str:
    with pytest.raises(InputError) as caught:
        scan(job)
    return str(caught.value)


def test_a_malformed_line_is_an_error_row_and_the_job_goes_on(tmp_path: Path) -> None:
    lines = [{"id": "a", "prompt": "p"}, "", '{"id": "b", ', {"id": "c", "prompt": "q"}]
    found = items(job_over(write_lines(tmp_path / "a.jsonl", lines)))
    assert [item.id for item in found] == ["a", "a.jsonl#1", "c"]
    code, message = error_of(found[1])
    assert code == "bad_row"
    assert message.startswith("a.jsonl:3: the line is not valid JSON")


def test_an_error_row_keeps_the_columns_that_can_be_read(tmp_path: Path) -> None:
    lines = [{"prompt": 3, "label": "x"}, "[", {"prompt": "p", "label": "y"}]
    assert [row["label"] for row in kept(job_over(write_lines(tmp_path / "a.jsonl", lines)))] == [
        "x",
        None,
        "y",
    ]


def test_invalid_utf8_in_a_line_is_an_error_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "a\xff"}\n{"prompt": "b"}\n')
    found = items(job_over(tmp_path / "a.jsonl"))
    assert error_of(found[0])[0] == "bad_row"
    assert "a.jsonl:1: the line is not valid UTF-8" in error_of(found[0])[1]


@pytest.mark.parametrize("column", ["prompt", "id", "note"])
def test_invalid_utf8_in_a_table_is_an_error_row(tmp_path: Path, column: str) -> None:
    broken = pa.array([b"fine", b"\xff\xfe", b"good"]).cast(pa.binary())
    texts = pa.StringArray.from_buffers(3, broken.buffers()[1], broken.buffers()[2])
    columns = {"id": ["x", "y", "z"], "prompt": ["p", "q", "r"], "note": ["1", "2", "3"]}
    path = write_parquet(tmp_path / "a.parquet", {**columns, column: texts})
    found = items(job_over(path))
    said = f"a.parquet#1: the column '{column}' is not valid UTF-8 (byte 1)"
    assert error_of(found[1]) == ("bad_row", said)
    assert [type(item).__name__ for item in found] == ["Request", "Completion", "Request"]
    assert [row[column] for row in kept(job_over(path))] == ["fine", None, "good"]


def test_invalid_utf8_inside_a_nested_column_is_an_error_row(tmp_path: Path) -> None:
    broken = pa.array([b"user", b"\xff"]).cast(pa.binary())
    texts = pa.StringArray.from_buffers(2, broken.buffers()[1], broken.buffers()[2])
    tags = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), texts)
    path = write_parquet(tmp_path / "a.parquet", {"prompt": ["p", "q"], "tags": tags})
    assert prompts(job_over(path)) == ["p", "bad_row"]
    assert [row["tags"] for row in kept(job_over(path))] == [["user"], None]


def test_a_line_of_10_megabytes_is_a_row(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "x" * 10_000_000}, {"prompt": "y"}])
    assert [len(prompt) for prompt in prompts(job_over(path))] == [10_000_000, 1]


def test_a_line_beyond_the_bound_is_an_error_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "' + b"x" * (65 << 20) + b'"}\n{"prompt": "y"}\n')
    found = items(job_over(path))
    assert error_of(found[0]) == ("bad_row", "a.jsonl:1: the line is longer than 64 MiB")
    assert len(found) == 2


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        ({"prompt": ""}, "bad_row", "the column 'prompt' is empty"),
        ({"prompt": 3}, "bad_row", "must be text, it is a number"),
        ({"prompt": [{"role": "user"}]}, "bad_row", "for a chat, set input.messages"),
        ({"prompt": None}, "missing_column", "the column 'prompt' is null"),
        ({"other": "x"}, "missing_column", "the column 'prompt' is missing"),
        ({"prompt": "p", "sampling_params": {"n": 9}}, "bad_sampling", "sampling.n"),
        ({"prompt": "p", "id": {"a": 1}}, "bad_row", "the id in 'id' must be text or a number"),
    ],
)
def test_a_row_that_cannot_be_a_prompt_says_why(
    tmp_path: Path, row: dict[str, Any], code: str, said: str
) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "fine"}, row])
    found = items(job_over(path))
    assert error_of(found[1])[0] == code
    assert said in error_of(found[1])[1]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_chat_with_a_wrong_role_is_an_error_row(tmp_path: Path, kind: str) -> None:
    good, bad = {"role": "user", "content": "Hi"}, {"role": "boss", "content": "Go"}
    if kind == "jsonl":
        path = write_lines(tmp_path / "a.jsonl", [{"messages": [good]}, {"messages": [bad]}])
    else:
        path = write_parquet(tmp_path / "a.parquet", {"messages": [[good], [bad]]})
    found = items(job_over(path))
    assert error_of(found[1])[0] == "bad_messages"
    assert "the role “boss”" in error_of(found[1])[1]


@pytest.mark.parametrize("names", [("a.jsonl", "b.parquet"), ("a.parquet", "b.jsonl")])
def test_two_rows_with_one_id_are_named_with_both_places(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    rows = [{"id": "x", "prompt": "p"}, {"id": "same", "prompt": "p"}]
    for name, first in zip(names, rows, strict=True):
        table = [first, {"id": "same" if name.startswith("a") else "y", "prompt": "p"}]
        if name.endswith("jsonl"):
            write_lines(tmp_path / "in" / name, ["", *table])
        else:
            write_parquet(tmp_path / "in" / name, pa.Table.from_pylist(table))
    places = {"a.jsonl": "a.jsonl:3", "b.jsonl": "b.jsonl:2"}
    places |= {"a.parquet": "a.parquet#1", "b.parquet": "b.parquet#0"}
    why = refusal(job_over(tmp_path / "in"))
    assert f"the id 'same' stands at {places[names[0]]} and again at {places[names[1]]}" in why


def test_a_number_and_its_text_are_one_id(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"id": 1, "prompt": "p"}, {"id": "1", "prompt": "q"}])
    assert "the id '1' stands at a.jsonl:1 and again at a.jsonl:2" in refusal(job_over(path))


def test_a_made_up_id_never_hides_behind_one_that_was_given(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"id": "a.jsonl#1", "prompt": "p"}, {"prompt": "q"}])
    assert "the id 'a.jsonl#1' stands at" in refusal(job_over(path))


def test_many_ids_that_stand_twice_are_counted(tmp_path: Path) -> None:
    rows = [{"id": i % 1000, "prompt": "p"} for i in range(2000)]
    why = refusal(job_over(write_lines(tmp_path / "a.jsonl", rows)))
    assert "the id '0' stands at a.jsonl:1 and again at a.jsonl:1001, and 999 more" in why


def test_a_collision_of_hashes_is_no_duplicate() -> None:
    hashes = np.array([5, 7, 5, 5, 7], np.uint64)
    refuse_duplicates(hashes, lambda row: (f"id {row}", f"a#{row}"))


def test_a_duplicate_behind_a_collision_is_found() -> None:
    names = ["a", "b", "a"]
    with pytest.raises(InputError, match=r"'a' stands at f#0 and again at f#2"):
        refuse_duplicates(np.array([5, 5, 5], np.uint64), lambda row: (names[row], f"f#{row}"))


def test_all_ids_being_told_apart_does_not_read_any_again() -> None:
    hashes = np.array([hash_id(str(i)) for i in range(1000)], np.uint64)
    refuse_duplicates(hashes, lambda _: pytest.fail("an id was read again"))


def test_a_truncated_parquet_file_stops_the_job_and_is_named(tmp_path: Path) -> None:
    write_lines(tmp_path / "in/a.jsonl", [{"prompt": "p"}])
    path = write_parquet(tmp_path / "in/b.parquet", {"prompt": ["q"] * 100})
    path.write_bytes(path.read_bytes()[:-20])
    assert "b.parquet cannot be read as Parquet" in refusal(job_over(tmp_path / "in"))


def test_two_candidate_columns_stop_the_job_and_are_listed(tmp_path: Path) -> None:
    write_lines(tmp_path / "in/a.jsonl", [{"prompt": "p"}])
    write_parquet(tmp_path / "in/b.parquet", {"text": ["q"]})
    why = refusal(job_over(tmp_path / "in"))
    assert "the columns prompt, text could each be the prompt" in why


def test_a_missing_column_stops_the_job_with_a_suggestion(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"question": ["q"], "label": [1]})
    assert "did you mean 'question'" in refusal(job_over(path, prompt="qestion"))
    assert "did you mean 'label'" in refusal(job_over(path, id="labels"))
    assert "did you mean 'label'" in refusal(job_over(path, output={"keep_columns": ["labl"]}))


def test_a_prompt_column_that_is_no_text_in_a_table_stops_the_job(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"prompt": [[{"role": "user", "content": "x"}]]})
    why = refusal(job_over(path))
    assert "a.parquet: the column 'prompt' is list<" in why
    assert "set input.messages" in why


def test_an_empty_file_is_a_warning(tmp_path: Path) -> None:
    write_lines(tmp_path / "in/a.jsonl", ["", "  "])
    write_lines(tmp_path / "in/b.jsonl", [{"prompt": "p"}])
    scanned = scan(job_over(tmp_path / "in"))
    assert scanned.rows == 1
    assert scanned.warnings == ("a.jsonl is empty: no rows come from it",)


def test_a_job_without_any_row_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "in/a.jsonl", [])
    write_parquet(tmp_path / "in/b.parquet", {"prompt": pa.array([], pa.string())})
    why = refusal(job_over(tmp_path / "in"))
    assert why == "the input has no rows: there are none in a.jsonl, b.parquet"


def test_a_file_of_nothing_but_bad_lines_shows_the_first(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["prompt,label", "x,1"])
    assert "the first: a.jsonl:1: the line is not valid JSON" in refusal(job_over(path))


def test_names_used_as_data_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "p", f"k{i}": i} for i in range(3000)])
    assert "more than 2,000 columns" in refusal(job_over(path))


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "p"}])
    path.unlink()
    path.symlink_to(tmp_path / "loop.jsonl")
    (tmp_path / "loop.jsonl").symlink_to(path)
    assert "a.jsonl" in refusal(job_over(path))


BYTES = st.binary(max_size=60).map(lambda data: data.replace(b"\n", b""))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(["q", "a", "b", "sampling_params", "ü"])
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=4)
LINES = st.lists(BYTES | OBJECTS.map(lambda row: json.dumps(row).encode()), max_size=25)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(lines=LINES, shard_rows=st.integers(1, 10))
def test_any_bytes_give_one_item_for_every_line_that_is_not_blank(
    tmp_path: Path, lines: list[bytes], shard_rows: int
) -> None:
    first = b'{"q": "a prompt"}'
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([first, *lines]))
    job = job_over(tmp_path / "a.jsonl", prompt="q", output={"shard_rows": shard_rows})
    scanned = scan(job)
    read = chunks(job)
    found = [item for chunk in read for item in chunk.items]
    assert len(found) == scanned.rows == 1 + sum(bool(line.strip()) for line in lines)
    assert scanned.id_hashes.tolist() == [hash_id(item.id) for item in found]
    assert all(chunk.columns.num_rows == chunk.rows for chunk in read)
    assert all(chunk.columns.schema == scanned.schema for chunk in read)


def plain_value(value: Any) -> Any:
    """A value without what Arrow has no room for: the difference of null and missing."""
    if isinstance(value, dict):
        return {key: plain_value(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [plain_value(item) for item in value]
    return ("flag", value) if isinstance(value, bool) else value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(OBJECTS, min_size=1, max_size=8))
def test_every_value_is_kept_as_it_was_or_as_json_of_it(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"q": "p"}, *rows])
    job = job_over(path, prompt="q")
    as_json = scan(job).json_columns
    for row, out in zip(rows, kept(job)[1:], strict=True):
        for name, value in out.items():
            is_text = name in as_json and value is not None
            back = json.loads(value) if is_text else value
            assert plain_value(back) == plain_value(row.get(name))


def test_the_hash_of_an_id_is_the_same_in_every_process_and_release() -> None:
    assert hash_id("a") == 3405396810240292928
