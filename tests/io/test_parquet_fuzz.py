"""Whatever a Parquet file holds, it is rows, rows with an error, or a refusal that names it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.io.input_jobs import job_over, scan
from tightrun.core import Completion, Request
from tightrun.io.inputs import InputError, read_chunks

ANY = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

leaf_types = st.sampled_from(
    [
        *(pa.string(), pa.large_string(), pa.binary(), pa.int8(), pa.uint64(), pa.float16()),
        *(pa.float64(), pa.bool_(), pa.date32(), pa.timestamp("us"), pa.time64("us")),
        *(pa.decimal128(20, 3), pa.null(), pa.dictionary(pa.int32(), pa.string())),
    ]
)
types = st.recursive(
    leaf_types,
    lambda inner: st.one_of(
        inner.map(pa.list_),
        st.dictionaries(st.text(max_size=3), inner, min_size=1, max_size=3).map(
            lambda fields: pa.struct([pa.field(name, kind) for name, kind in fields.items()])
        ),
    ),
    max_leaves=4,
)
NAMES = ("prompt", "messages", "custom_id", "text", "sampling_params", "error", "")
schemas = st.lists(
    st.tuples(st.sampled_from(NAMES) | st.text(max_size=4), types), min_size=1, max_size=4
)


def read(path: Path) -> None:
    """Reads all of it, as a run would."""
    job = job_over(path)
    with suppress(InputError):
        found = scan(job, path.parent / "spool")
        items = [item for chunk in read_chunks(found, job) for item in chunk.items]
        assert len(items) == found.rows
        assert all(isinstance(item, (Request, Completion)) for item in items)


def valid_file(path: Path) -> bytes:
    rows: dict[str, Any] = {
        "custom_id": [f"r{number}" for number in range(40)],
        "prompt": ["say " * (number % 7) for number in range(40)],
        "deep": [[{"a": number}] for number in range(40)],
    }
    pq.write_table(pa.table(rows), path, row_group_size=16)
    return path.read_bytes()


@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    st.floats(0, 1),
    st.binary(max_size=8),
)
@ANY
def test_a_damaged_file_is_rows_or_refused(
    tmp_path: Path, flips: list[tuple[float, int]], cut: float, inserted: bytes
) -> None:
    data = bytearray(valid_file(tmp_path / "in.parquet"))
    for place, value in flips:
        data[int(place * len(data))] = value
    at = int(cut * len(data))
    data[at:at] = inserted
    (tmp_path / "in.parquet").write_bytes(data)
    read(tmp_path / "in.parquet")


@given(schemas, st.data())
@ANY
def test_columns_of_any_type_are_rows_or_refused(
    tmp_path: Path, columns: list[tuple[str, pa.DataType]], data: st.DataObject
) -> None:
    names, kinds = zip(*columns, strict=True)
    arrays = [pa.nulls(data.draw(st.just(3)), kind) for kind in kinds]
    table = pa.Table.from_arrays(arrays, names=list(names))
    try:
        pq.write_table(table, tmp_path / "in.parquet")
    except (pa.ArrowException, ValueError):
        return
    read(tmp_path / "in.parquet")


@given(st.binary(max_size=64))
@ANY
def test_bytes_of_any_kind_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "in.parquet").write_bytes(b"PAR1" + data + b"PAR1")
    read(tmp_path / "in.parquet")
