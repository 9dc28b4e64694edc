"""Output rows: the explicit schema, and what each column holds."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.io.finished_rows import bad_row, completions, good_row
from tightrun.core import Completion, Sample, TokenLogprob
from tightrun.io.column_spool import Kept
from tightrun.io.rows import RowShape

NOTHING = pa.schema([])
CONTRACT = {
    "custom_id": "string",
    "row_index": "int64",
    "source_file": "string",
    "text": "string",
    "finish_reason": "string",
    "stop_reason": "string",
    "error": "struct<code: string, message: string>",
    "prompt_tokens": "int32",
    "completion_tokens": "int32",
    "seed": "int64",
    "attempt": "int16",
}
LOGPROBS = (
    "list<item: struct<token_id: int32, token: string, logprob: float, "
    "top: list<item: struct<token_id: int32, token: string, logprob: float>>>>"
)


def batch_of(shape: RowShape, rows: Sequence[Completion]) -> pa.RecordBatch:
    empty = pa.RecordBatch.from_arrays([], schema=NOTHING)
    return shape.batch(rows, Kept(rows[0].row_index, len(rows), "in.jsonl", empty))


def row_of(shape: RowShape, row: Completion) -> dict[str, object]:
    batch = batch_of(shape, [row])
    batch.validate(full=True)
    return dict(batch.to_pylist()[0])


def test_the_columns_are_those_of_the_contract() -> None:
    shape = RowShape(NOTHING, samples=False, logprobs=False)
    assert {field.name: str(field.type) for field in shape.schema} == CONTRACT


def test_samples_and_logprobs_have_the_contracts_types() -> None:
    shape = RowShape(NOTHING, samples=True, logprobs=True)
    assert shape.schema.names[-2:] == ["samples", "logprobs"]
    assert str(shape.schema.field("logprobs").type) == LOGPROBS
    assert str(shape.schema.field("samples").type) == (
        "list<item: struct<text: string, finish_reason: string, stop_reason: string, "
        f"completion_tokens: int32, logprobs: {LOGPROBS}>>"
    )


@pytest.mark.parametrize(
    ("kept", "written"),
    [
        (["question", "answer"], ["question", "answer"]),
        (["text"], ["input_text"]),
        (["text", "input_text"], ["input_input_text", "input_text"]),
        (["input_text", "text"], ["input_text", "input_input_text"]),
        (["error", "seed", "x"], ["input_error", "input_seed", "x"]),
        (["samples", "logprobs"], ["samples", "logprobs"]),
    ],
)
def test_a_kept_column_gives_way_where_its_name_is_taken(
    kept: list[str], written: list[str]
) -> None:
    schema = pa.schema([(name, pa.int8()) for name in kept])
    shape = RowShape(schema, samples=False, logprobs=False)
    assert shape.schema.names[len(CONTRACT) :] == written


def test_a_kept_column_called_samples_gives_way_to_our_own() -> None:
    shape = RowShape(pa.schema([("samples", pa.int8())]), samples=True, logprobs=False)
    assert shape.schema.names[-2:] == ["samples", "input_samples"]


def test_metadata_of_the_input_is_left_out() -> None:
    schema = pa.schema([pa.field("a", pa.int8(), metadata={"b": "c"})], metadata={"pandas": "{}"})
    shape = RowShape(schema, samples=False, logprobs=False)
    assert shape.schema.metadata is None
    assert shape.schema.field("a").metadata is None


def test_a_good_row_shows_its_sample() -> None:
    shape = RowShape(NOTHING, samples=False, logprobs=False)
    sample = Sample("hello", "stop", stop_reason="\n", completion_tokens=4)
    row = Completion(5, "five", (sample,), prompt_tokens=9, seed=-1, attempt=2)
    assert row_of(shape, row) == {
        "custom_id": "five",
        "row_index": 5,
        "source_file": "in.jsonl",
        "text": "hello",
        "finish_reason": "stop",
        "stop_reason": "\n",
        "error": None,
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "seed": -1,
        "attempt": 2,
    }


def test_a_failed_row_has_an_error_and_no_text() -> None:
    shape = RowShape(NOTHING, samples=True, logprobs=True)
    row = row_of(shape, bad_row(5, "context_length"))
    assert row["error"] == {"code": "context_length", "message": "row 5 is bad"}
    assert row["finish_reason"] == "error"
    assert [row[name] for name in ("text", "samples", "logprobs", "seed")] == [None] * 4


def test_a_row_of_several_samples_describes_the_first_and_holds_all() -> None:
    shape = RowShape(NOTHING, samples=True, logprobs=False)
    row = row_of(shape, good_row(1, n=3))
    assert row["text"] == "output 1.0"
    assert row["completion_tokens"] == 3
    assert row["samples"] == [
        {
            "text": f"output 1.{i}",
            "finish_reason": "stop",
            "stop_reason": None,
            "completion_tokens": 3 + i,
            "logprobs": None,
        }
        for i in range(3)
    ]


def test_logprobs_are_null_where_a_row_did_not_ask() -> None:
    shape = RowShape(NOTHING, samples=False, logprobs=True)
    token = TokenLogprob(11, "a", -0.5, ((11, "a", -0.5), (12, "b", -1.0)))
    asked = good_row(1, logprobs=(token, TokenLogprob(13, "c", -0.25)))
    batch = batch_of(shape, [good_row(0), asked, good_row(2, logprobs=())])
    assert batch.column("logprobs").to_pylist() == [
        None,
        [
            {
                "token_id": 11,
                "token": "a",
                "logprob": -0.5,
                "top": [
                    {"token_id": 11, "token": "a", "logprob": -0.5},
                    {"token_id": 12, "token": "b", "logprob": -1.0},
                ],
            },
            {"token_id": 13, "token": "c", "logprob": -0.25, "top": []},
        ],
        [],
    ]


@settings(deadline=None)
@given(st.lists(completions(), min_size=1, max_size=5))
def test_any_rows_fit_the_schema(rows: list[Completion]) -> None:
    shape = RowShape(NOTHING, samples=True, logprobs=True)
    batch = batch_of(shape, rows)
    batch.validate(full=True)
    texts = [None if row.error else row.samples[0].text for row in rows]
    assert batch.column("text").to_pylist() == texts
    lengths = [None if row.error else len(row.samples) for row in rows]
    assert [s and len(s) for s in batch.column("samples").to_pylist()] == lengths
