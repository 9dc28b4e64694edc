"""Whatever stands in an OpenAI batch line, it is a request or a row that says what is wrong."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.io.input_jobs import chunks, job_over, scan
from tightrun.core import Request
from tightrun.io.input_types import BadRowError
from tightrun.io.openai_batch import BatchLineReader

FIELDS = (
    *("model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature"),
    *("top_p", "top_k", "n", "seed", "stop", "logprobs", "top_logprobs", "presence_penalty"),
    *("frequency_penalty", "stream", "tools", "tool_choice", "response_format", "logit_bias"),
    *("echo", "best_of", "suffix", "user", "metadata", "modalities", "ignore_eos", "min_tokens"),
)
WORDS = ("POST", "user", "assistant", "system", "text", "auto", "none", "🙂", "\ud800")
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(WORDS)
)
keys = st.sampled_from([*FIELDS, "role", "content", "type", "text"]) | st.text(max_size=4)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=10,
)
bodies = st.dictionaries(st.sampled_from(FIELDS), values, max_size=6)
urls = st.sampled_from(["/v1/chat/completions", "/v1/completions", "/v1/completions/"]) | values
batch_lines = st.fixed_dictionaries(
    {},
    optional={
        "custom_id": values,
        "method": st.just("POST") | values,
        "url": urls,
        "body": bodies | values,
        "more": values,
    },
)


@given(batch_lines)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_line_is_a_request_or_says_why_not(row: dict[str, Any]) -> None:
    reader = BatchLineReader(job_over("x.jsonl"))
    made: Request | None = None
    with suppress(BadRowError):
        reader.note_model(row)
        made = reader.request(row, 7, reader.id_of(row))
    assert made is None or made.row_index == 7


@given(st.lists(batch_lines, max_size=6))
@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_a_file_of_any_lines_gives_an_item_for_each(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    for number, row in enumerate(rows):
        row["custom_id"] = f"line {number}"
    first = {
        "custom_id": "first",
        "method": "POST",
        "url": "/v1/completions",
        "body": {"prompt": "a prompt"},
    }
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (first, *rows)))
    job = job_over(path, format="openai-batch")
    found = [item for chunk in chunks(job) for item in chunk.items]
    assert len(found) == scan(job).rows == 1 + len(rows)
