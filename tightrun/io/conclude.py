"""What the scan comes to: the columns chosen, the ids proven unique, one schema, the warnings."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import partial
from operator import attrgetter

import pyarrow as pa

from tightrun.io.arrow_types import plain
from tightrun.io.columns import (
    PromptColumns,
    choose_id,
    choose_kept,
    choose_prompt,
    id_columns,
)
from tightrun.io.input_types import InputError, InputFormat, Scan
from tightrun.io.job_model import Job
from tightrun.io.line_rows import line_rows, parse_line
from tightrun.io.openai_batch import other_models
from tightrun.io.prompts import identify
from tightrun.io.row_ids import fingerprint, refuse_duplicates, row_id
from tightrun.io.scan import Scanner
from tightrun.io.table_rows import open_table, table_rows


def conclude(scanner: Scanner, job: Job) -> Scan:
    """The scan of all sources; raises InputError if there is nothing to run, or it is not clear."""
    sources = tuple(scanner.sources)
    if not scanner.rows:
        empty = ", ".join(source.name for source in sources[:8])
        raise InputError(f"the input has no rows: there are none in {empty}")
    kinds = {source.kind for source in sources if source.rows}
    names = scanner.columns.names
    if not names and scanner.first_problem is not None:
        raise InputError(f"no row of the input can be read; the first: {scanner.first_problem}")
    if kinds != {"openai-batch"}:
        _refuse_no_text(choose_prompt(job.input, names), scanner)
        choose_id(job.input, names)
    kept = choose_kept(job.output, names)
    schema, as_json = scanner.columns.schema(kept)
    refuse_duplicates(scanner.id_hashes, lambda row: _id_at(row, scanner, job))
    form: InputFormat = "mixed" if len(kinds) > 1 else next(iter(kinds))
    return Scan(
        rows=scanner.rows,
        sources=sources,
        schema=schema,
        lengths=scanner.lengths,
        id_hashes=scanner.id_hashes,
        format=form,
        fingerprint=fingerprint(scanner.id_hashes),
        columns=names,
        json_columns=as_json,
        warnings=tuple(_warnings(scanner, job, as_json)),
    )


def _refuse_no_text(prompt: PromptColumns, scanner: Scanner) -> None:
    if prompt.form != "text":
        return
    for name in prompt.columns:
        for kind, source in scanner.columns.table_types(name).items():
            if not _may_be_text(kind):
                hint = "; for a chat, set input.messages" if pa.types.is_nested(kind) else ""
                raise InputError(
                    f"{source}: the column {name!r} is {kind}, a prompt must be text{hint}"
                )


def _may_be_text(kind: pa.DataType) -> bool:
    return any(is_kind(plain(kind)) for is_kind in (pa.types.is_string, pa.types.is_null))


def _id_at(row: int, scanner: Scanner, job: Job) -> tuple[str, str]:
    """The id of a row, read again, and where it stands."""
    source = scanner.sources[bisect_right(scanner.sources, row, key=attrgetter("start")) - 1]
    index = row - source.start
    made_up = f"{source.name}#{index}"
    columns = id_columns(job.input)
    id_of = partial(row_id, columns=columns)
    if source.offsets is not None:
        line = next(line_rows(source, index))
        own = scanner.batch.id_of if source.kind == "openai-batch" else id_of
        return identify(own, parse_line(line), made_up), f"{source.name}:{line.number}"
    table, _ = open_table(source.data_path, source.kind, job.input)
    names = [name for name in columns.columns if name in table.schema.names]
    found = table_rows(next(table.batches(names, index)).slice(0, 1), names)[0]
    return identify(id_of, found, made_up), made_up


def _warnings(scanner: Scanner, job: Job, as_json: frozenset[str]) -> Iterator[str]:
    for source in scanner.sources:
        if not source.rows:
            yield f"{source.name} is empty: no rows come from it"
    models = other_models(scanner.batch.models, job.model.path)
    if models:
        yield models
    for name in sorted(as_json):
        yield f"the column {name!r} has values of types without a common one; kept as JSON text"
